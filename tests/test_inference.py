import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from brats_utils.cases.case import Case
from brats_utils.cases.nifti import save_volume
from brats_utils.cases.reader import read_case
from brats_utils.inference import Predictor, predict_logits, predict_members, predict_scan
from brats_utils.labels import BRATS_2021, MSD
from brats_utils.post_processing import MIN_TUMOUR_ML, postprocess_regions


class Threshold(nn.Module):
    """A network whose answer is known: WT where the first channel is high."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        whole = 10 * (image[:, :1] - 0.5)
        return torch.cat([torch.full_like(whole, -10), whole, torch.full_like(whole, -10)], dim=1)


class LeftIsTumour(Threshold):
    """A network that a mirror fools: WT in the first half of the first axis, wherever the brain is."""

    def forward(self, image):
        logits = torch.full_like(image[:, :3], -10)
        logits[:, 1, : image.shape[2] // 2] = 10
        return logits


def predictor(*models, **changes):
    settings = {"spacing_mm": 1.0, "roi_size": (32, 32, 32), "schema": MSD} | changes
    return Predictor(tuple(models) or (Threshold(),), **settings)


def predict_files(predictor, *files):
    return predict_scan(predictor, read_case(Case("one", files)))


def write_scan(folder, affine, *, shape=(24, 28, 20), name="scan.nii.gz"):
    """Write a 4D scan: a brain in air, with a bright box off its centre; return its path and the box."""
    image = np.zeros((*shape, 4), dtype=np.float32)
    image[3:-3, 3:-3, 3:-3] = 1 + np.random.default_rng(0).random((*(n - 6 for n in shape), 4))
    box = np.zeros(shape, dtype=bool)
    box[4:18, 5:23, 4:15] = True  # 1.4 mL and more in the smallest voxels used here
    image[box] = 20
    path = folder / name
    nib.save(nib.Nifti1Image(image, affine), path)
    return path, box


def affine_of(codes, spacing=(1.0, 1.0, 1.0), rotation=0.0):
    directions = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (24, 28, 20))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]]
    return turn @ directions @ np.diag([*spacing, 1])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_prediction_lands_on_the_voxels_it_was_made_from(tmp_path, codes):
    path, box = write_scan(tmp_path, affine_of(codes))
    labels = predict_files(predictor(), path).labels
    assert labels.shape == box.shape
    assert np.array_equal(labels.numpy() == MSD.edema, box)


@pytest.mark.parametrize(("spacing", "rotation"), [((1, 1, 3), 0.0), ((0.8, 0.8, 0.8), 0.0), ((1, 1, 1), 0.3)])
def test_anisotropic_and_oblique_scans_keep_their_grid(tmp_path, spacing, rotation):
    path, box = write_scan(tmp_path, affine_of("LPS", spacing, rotation))
    found = predict_files(predictor(), path).labels.numpy() == MSD.edema
    assert 2 * (found & box).sum() / (found.sum() + box.sum()) > 0.8


@pytest.mark.parametrize("spacing_mm", [0.5, 2.0])
def test_a_network_of_other_voxel_size_predicts_on_the_scans_grid(tmp_path, spacing_mm):
    path, box = write_scan(tmp_path, affine_of("LPS"))
    found = predict_files(predictor(spacing_mm=spacing_mm), path).labels.numpy() == MSD.edema
    assert 2 * (found & box).sum() / (found.sum() + box.sum()) > 0.8


def test_labels_carry_the_geometry_and_codes_of_the_scan(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("LPS"))
    scan = nib.load(path)
    scan.set_qform(scan.affine, 2)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, path)
    saved = nib.load(save_volume(torch.ones(24, 28, 20, dtype=torch.uint8), tmp_path / "out/a.nii.gz", like=path))
    assert np.array_equal(saved.affine, scan.affine)
    assert (int(saved.header["qform_code"]), int(saved.header["sform_code"])) == (2, int(scan.header["sform_code"]))
    assert saved.header.get_xyzt_units()[0] == "mm"
    assert saved.get_data_dtype() == np.uint8
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_trace_of_enhancement_becomes_core_and_more_than_that_stays():
    regions = torch.zeros(3, 10, 10, 10, dtype=torch.bool)
    regions[:, 0, 0, :4] = True
    regions[:2, 0, 0] = True
    core, whole, enhancing = postprocess_regions(regions, voxel_ml=0.2)
    assert not enhancing.any()
    assert torch.equal(torch.stack([core, whole]), regions[:2])
    assert torch.equal(postprocess_regions(regions, voxel_ml=0.3), regions)


def test_connected_components_below_the_limit_are_removed():
    regions = torch.zeros(3, 10, 10, 10, dtype=torch.bool)
    regions[1, :3, 0, 0] = True  # three voxels, in one piece with ...
    regions[0, 3, 1, 1] = True  # ... a fourth, of another region, across a corner
    regions[1, 6:9, 9, 9] = True
    cleaned = postprocess_regions(regions, voxel_ml=MIN_TUMOUR_ML / 4)
    assert int(cleaned[1].sum()) == 4
    assert not cleaned[:, 6:].any()


def test_nothing_small_is_removed_where_it_is_to_be_kept():
    regions = torch.zeros(3, 10, 10, 10, dtype=torch.bool)
    regions[2, 0, 0, 0] = True
    assert torch.equal(postprocess_regions(regions, voxel_ml=0.1, keep_small=True), regions[2].expand(3, -1, -1, -1))


def test_regions_are_nested():
    regions = torch.zeros(3, 3, 1, 1, dtype=torch.bool)
    regions[[0, 1, 2], [0, 1, 2]] = True  # each region claims one voxel, which the others deny
    core, whole, enhancing = postprocess_regions(regions, voxel_ml=2.0).flatten(1).tolist()
    assert (core, whole, enhancing) == ([True, False, True], [True, True, True], [False, False, True])


def test_labels_come_in_the_convention_asked_for(tmp_path):
    path, box = write_scan(tmp_path, affine_of("RAS"))
    labels = predict_files(predictor(schema=BRATS_2021), path).labels
    assert np.array_equal(labels.numpy() == BRATS_2021.edema, box)


def test_four_files_give_the_prediction_of_one(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("LPS"))
    scan = nib.load(path)
    four = [tmp_path / f"{index}.nii.gz" for index in range(4)]
    for index, target in enumerate(four):
        nib.save(nib.Nifti1Image(scan.get_fdata()[..., index].astype(np.float32), scan.affine), target)
    assert torch.equal(predict_files(predictor(), *four).labels, predict_files(predictor(), path).labels)


def test_window_smaller_than_the_volume_gives_the_same_answer():
    image = torch.rand(1, 4, 40, 24, 24)
    whole, tiled = (predict_logits(Threshold(), image, roi_size=roi) for roi in ((40, 24, 24), (16, 16, 16)))
    torch.testing.assert_close(whole, tiled, atol=1e-3, rtol=0)


def test_flips_change_the_answer_and_are_undone():
    image = torch.rand(4, 16, 16, 16)
    symmetric = list(predict_members(predictor(flips=True, roi_size=(16, 16, 16)), image))
    assert len(symmetric) == 8
    for member in symmetric[1:]:  # a network without sides gives the same picture, so each flip was undone
        torch.testing.assert_close(member, symmetric[0])
    sided = list(predict_members(predictor(LeftIsTumour(), flips=True, roi_size=(16, 16, 16)), image))
    means = {float(member[1, :8].mean().round(decimals=2)) for member in sided}
    assert means == {0.0, 1.0}  # half of the mirrors saw the other side


def test_spread_is_where_the_flips_disagree(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("RAS"))
    assert predict_files(predictor(LeftIsTumour()), path).uncertainty is None
    spread = predict_files(predictor(LeftIsTumour(), flips=True), path).uncertainty
    assert spread is not None
    assert float(spread[1, 12, 14, 10]) == pytest.approx(0.5, abs=0.01)
    assert float(spread[2].max()) == pytest.approx(0, abs=1e-3)


def test_an_ensemble_averages_probabilities(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("RAS"))
    alone = [predict_files(predictor(model), path).probabilities for model in (Threshold(), LeftIsTumour())]
    together = predict_files(predictor(Threshold(), LeftIsTumour()), path).probabilities
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


def test_a_cropped_scan_gives_the_same_labels_as_the_whole(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("LPS"))
    whole = predict_files(predictor(), path).labels
    nib.save(nib.load(path).slicer[3:-3, 3:-3, 3:-3], tmp_path / "cropped.nii.gz")
    cropped = predict_files(predictor(), tmp_path / "cropped.nii.gz").labels
    assert torch.equal(cropped, whole[3:-3, 3:-3, 3:-3])
    assert cropped.any()
