import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from brats_utils.inference import ScanError, clean_regions, predict_logits, predict_scan, save_labels
from brats_utils.labels import BRATS_2021, MSD

SETTINGS = {"spacing_mm": 1.0, "roi_size": (32, 32, 32), "schema": MSD}


class Threshold(nn.Module):
    """A network whose answer is known: WT where the first channel is high."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        whole = 10 * (image[:, :1] - 0.5)
        return torch.cat([torch.full_like(whole, -10), whole, torch.full_like(whole, -10)], dim=1)


def write_scan(folder, affine, *, shape=(24, 28, 20), name="scan.nii.gz"):
    """Write a 4D scan: a brain in air, with a bright box off its centre; return its path and the box."""
    image = np.zeros((*shape, 4), dtype=np.float32)
    image[3:-3, 3:-3, 3:-3] = 1 + np.random.default_rng(0).random((*(n - 6 for n in shape), 4))
    box = np.zeros(shape, dtype=bool)
    box[5:12, 8:20, 4:10] = True
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
    labels = predict_scan(Threshold(), path, **SETTINGS).labels
    assert labels.shape == box.shape
    assert np.array_equal(labels.numpy() == MSD.edema, box)


@pytest.mark.parametrize(("spacing", "rotation"), [((1, 1, 3), 0.0), ((0.8, 0.8, 0.8), 0.0), ((1, 1, 1), 0.3)])
def test_anisotropic_and_oblique_scans_keep_their_grid(tmp_path, spacing, rotation):
    path, box = write_scan(tmp_path, affine_of("LPS", spacing, rotation))
    found = predict_scan(Threshold(), path, **SETTINGS).labels.numpy() == MSD.edema
    assert 2 * (found & box).sum() / (found.sum() + box.sum()) > 0.8


def test_labels_carry_the_geometry_and_codes_of_the_scan(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("LPS"))
    scan = nib.load(path)
    scan.set_qform(scan.affine, 2)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, path)
    saved = nib.load(save_labels(torch.ones(24, 28, 20, dtype=torch.uint8), tmp_path / "out/a.nii.gz", like=path))
    assert np.array_equal(saved.affine, scan.affine)
    assert (int(saved.header["qform_code"]), int(saved.header["sform_code"])) == (2, int(scan.header["sform_code"]))
    assert saved.header.get_xyzt_units()[0] == "mm"
    assert saved.get_data_dtype() == np.uint8
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_a_trace_of_enhancement_becomes_core_and_more_than_that_stays():
    regions = torch.zeros(3, 10, 10, 10, dtype=torch.bool)
    regions[:, 0, 0, :4] = True
    core, whole, enhancing = clean_regions(regions, voxel_ml=0.2)
    assert not enhancing.any()
    assert torch.equal(torch.stack([core, whole]), regions[:2])
    assert torch.equal(clean_regions(regions, voxel_ml=0.3), regions)


def test_regions_are_nested():
    regions = torch.zeros(3, 3, 1, 1, dtype=torch.bool)
    regions[[0, 1, 2], [0, 1, 2]] = True  # each region claims one voxel, which the others deny
    core, whole, enhancing = clean_regions(regions, voxel_ml=2.0).flatten(1).tolist()
    assert (core, whole, enhancing) == ([True, False, True], [True, True, True], [False, False, True])


def test_labels_come_in_the_numbering_asked_for(tmp_path):
    path, box = write_scan(tmp_path, affine_of("RAS"))
    labels = predict_scan(Threshold(), path, **SETTINGS | {"schema": BRATS_2021}).labels
    assert np.array_equal(labels.numpy() == BRATS_2021.edema, box)


def test_four_files_give_the_prediction_of_one(tmp_path):
    path, _ = write_scan(tmp_path, affine_of("LPS"))
    scan = nib.load(path)
    four = [tmp_path / f"{index}.nii.gz" for index in range(4)]
    for index, target in enumerate(four):
        nib.save(nib.Nifti1Image(scan.get_fdata()[..., index].astype(np.float32), scan.affine), target)
    assert torch.equal(
        predict_scan(Threshold(), four, **SETTINGS).labels, predict_scan(Threshold(), path, **SETTINGS).labels
    )


def test_window_smaller_than_the_volume_gives_the_same_answer():
    image = torch.rand(1, 4, 40, 24, 24)
    whole, tiled = (predict_logits(Threshold(), image, roi_size=roi) for roi in ((40, 24, 24), (16, 16, 16)))
    torch.testing.assert_close(whole, tiled, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "not found"),
        (lambda path: path.write_bytes(b"no NIfTI"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
    ],
    ids=["missing", "foreign", "truncated"],
)
def test_unreadable_scan_is_named(tmp_path, damage, message):
    path, _ = write_scan(tmp_path, affine_of("RAS"))
    damage(path)
    with pytest.raises(ScanError, match=rf"scan\.nii\.gz: {message}"):
        predict_scan(Threshold(), path, **SETTINGS)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinite"), (0.0, "holds one value everywhere")])
def test_nan_and_constant_channels_are_refused(tmp_path, value, message):
    path, _ = write_scan(tmp_path, affine_of("RAS"))
    scan = nib.load(path)
    values = scan.get_fdata()
    values[..., 2] = value
    nib.save(nib.Nifti1Image(values.astype(np.float32), scan.affine), path)
    with pytest.raises(ScanError, match=message):
        predict_scan(Threshold(), path, **SETTINGS)


def test_scans_on_different_grids_are_refused(tmp_path):
    paths = []
    for index in range(4):
        volume = np.random.default_rng(index).random((8, 8, 8)).astype(np.float32)
        paths.append(tmp_path / f"{index}.nii.gz")
        nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 1 + (index == 3), 1])), paths[-1])
    with pytest.raises(ScanError, match=r"3\.nii\.gz: found a grid .* Resample all scans"):
        predict_scan(Threshold(), paths, **SETTINGS)
