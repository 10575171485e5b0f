import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD, LabelError, labels_to_regions
from brats_utils.transforms import (
    RandAppearanced,
    _thicken,
    build_cached_transform,
    build_eval_transform,
    build_preprocessing,
    build_train_transform,
)


def write_case(folder, *, image=None, label=None, affine=None):
    """Write a small case: a box of brain in air, with some of every label."""
    if image is None:
        image = np.zeros((20, 24, 16, 4), dtype=np.float32)
        image[4:16, 4:20, 4:14] = np.random.default_rng(0).normal(100, 20, (12, 16, 10, 4))
    if label is None:
        label = np.zeros(image.shape[:3], dtype=np.uint8)
        label[6:12, 6:12, 6:10], label[7:11, 7:11, 7:9], label[8:10, 8:10, 8] = 1, 2, 3
    affine = np.eye(4) if affine is None else affine
    case = Case("one", (folder / "image.nii.gz",), folder / "label.nii.gz", MSD)
    for volume, path in zip((image, label), case.files, strict=True):
        nib.save(nib.Nifti1Image(volume, affine), path)
    return case


def prepare(case, spacing_mm=1.0):
    return build_preprocessing(spacing_mm)(read_case(case).tensors)


def test_prepared_image_is_cropped_to_the_brain_and_z_scored(tmp_path):
    case = prepare(write_case(tmp_path))
    assert case["image"].shape == (4, 12, 16, 10)
    brain = case["image"].as_tensor()
    torch.testing.assert_close(brain.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(brain.std((1, 2, 3), correction=0), torch.ones(4))


def test_spacing_halves_the_grid_and_keeps_labels_whole_numbers(tmp_path):
    case = prepare(write_case(tmp_path), spacing_mm=2.0)
    assert case["image"].shape[1:] == case["label"].shape[1:]
    assert all(abs(size - full / 2) <= 1 for size, full in zip(case["image"].shape[1:], (12, 16, 10), strict=True))
    assert set(case["label"].unique().tolist()) <= {0, 1, 2, 3}


def test_orientation_of_the_file_does_not_matter(tmp_path):
    (tmp_path / "lps").mkdir()
    ras = write_case(tmp_path)
    image, label = (np.asanyarray(nib.load(path).dataobj) for path in ras.files)
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:2, 3] = [19, 23]
    lps = write_case(tmp_path / "lps", image=image[::-1, ::-1], label=label[::-1, ::-1], affine=affine)
    first, second = (prepare(case) for case in (ras, lps))
    for key in ("image", "label"):
        torch.testing.assert_close(first[key].as_tensor(), second[key].as_tensor())


def test_negative_intensities_are_brain_and_not_background(tmp_path):
    image = np.zeros((20, 24, 16, 4), dtype=np.float32)
    image[4:16, 4:20, 4:14] = [-5.0, -6.0, -7.0, -8.0]
    image[4:16, 4:20, 4:8] = 5.0
    assert prepare(write_case(tmp_path, image=image))["image"].shape == (4, 12, 16, 10)


def prepare_and_fail(case):
    """The error of the library behind the one that MONAI wraps around it."""
    with pytest.raises(RuntimeError) as wrapped:
        build_cached_transform(1.0)(case)
    return wrapped.value.__cause__


def test_three_channels_are_refused(tmp_path):
    error = prepare_and_fail(write_case(tmp_path, image=np.ones((20, 24, 16, 3), dtype=np.float32)))
    assert isinstance(error, CaseError)
    assert "found 3 channels" in str(error)


def test_label_of_another_shape_is_refused(tmp_path):
    error = prepare_and_fail(write_case(tmp_path, label=np.zeros((20, 24, 15), dtype=np.uint8)))
    assert "found a label of shape (20, 24, 15), expected (20, 24, 16) as in" in str(error)


@pytest.mark.parametrize("value", [4, 2.7, -1, np.nan])
def test_unlisted_label_value_is_refused_and_the_file_named(tmp_path, value):
    error = prepare_and_fail(write_case(tmp_path, label=np.full((20, 24, 16), value, dtype=np.float32)))
    assert isinstance(error, LabelError)
    assert f"label.nii.gz: found label values [{value:g}" in str(error)


def test_cached_case_is_compact_and_becomes_a_training_patch(tmp_path):
    cached = build_cached_transform(1.0)(write_case(tmp_path))
    assert (cached["image"].dtype, cached["label"].dtype) == (torch.float16, torch.uint8)
    before = cached["image"].clone()
    (patch,) = build_train_transform((16, 16, 16), schema=MSD, appearance="strong")(cached)
    assert patch["image"].shape == (4, 16, 16, 16)
    assert patch["image"].dtype == torch.float32
    assert patch["label"].shape == (3, 16, 16, 16)
    assert patch["label"].dtype == torch.bool
    assert torch.equal(cached["image"], before)


def test_training_patches_differ_and_follow_the_seed(tmp_path):
    cached = build_cached_transform(1.0)(write_case(tmp_path))
    transform = build_train_transform((8, 8, 8), schema=MSD, appearance="strong")

    def draw(seed):
        transform.set_random_state(seed)
        return transform(cached)[0]["image"]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_classic_appearance_is_one_factor_and_one_offset_for_all_voxels(tmp_path):
    cached = build_cached_transform(1.0)(write_case(tmp_path))
    transform = build_train_transform((16, 16, 16), schema=MSD, appearance="classic")
    (before,) = Compose(transform.transforms[:-2]).set_random_state(0)(cached)  # the same without the last two
    (after,) = transform.set_random_state(0)(cached)
    image, changed = before["image"], after["image"]
    offset = changed[image == 0][0]
    factor = ((changed - offset) / image)[image != 0].median()
    assert offset.abs() <= 0.1
    assert 0 < (factor - 1).abs() <= 0.1001
    torch.testing.assert_close(changed, factor * image + offset, atol=1e-5, rtol=1e-5)


def test_evaluation_changes_nothing_but_the_labels(tmp_path):
    cached = build_cached_transform(1.0)(write_case(tmp_path))
    case = build_eval_transform(MSD)(cached)
    assert torch.equal(case["image"], cached["image"].float())
    assert torch.equal(case["label"], labels_to_regions(cached["label"], MSD))


def test_appearance_changes_every_channel_in_its_own_way_and_leaves_background_and_input_alone():
    image = torch.randn(1, 12, 16, 10).expand(4, -1, -1, -1).clone()
    image[:, :3] = 0
    before, changes = image.clone(), RandAppearanced("image").set_random_state(0)
    first, second = (changes({"image": image})["image"] for _ in range(2))
    assert torch.equal(image, before)
    assert first.dtype == torch.float32
    assert (first[:, :3] == 0).all()
    assert first.isfinite().all()
    for one, other in ((first, second), *((first[:1], first[c : c + 1]) for c in range(1, 4))):
        assert (one - other)[:, 3:].abs().mean() > 0.05
    again = RandAppearanced("image").set_random_state(0)({"image": image})["image"]
    assert torch.equal(again, first)
    assert RandAppearanced("image")({"image": image.half()})["image"].dtype == torch.float32


def test_thick_slices_keep_the_mean_and_lose_detail_along_one_axis():
    image = torch.randn(4, 24, 24, 24)
    thick = _thicken(image, 3.0, axis=2)
    assert thick.shape == image.shape
    torch.testing.assert_close(thick.mean(), image.mean(), atol=0.02, rtol=0)
    assert thick.diff(dim=3).std() < 0.5 * image.diff(dim=3).std()
    torch.testing.assert_close(_thicken(torch.ones(4, 9, 9, 9), 2.0, axis=0), torch.ones(4, 9, 9, 9))


def test_appearance_keeps_the_order_of_dark_and_bright_within_a_channel():
    """Where noise, blur and bias are small beside the contrast, what was brighter stays brighter."""
    image = torch.full((4, 24, 24, 24), -1.0)
    image[:, 8:16, 8:16, 8:16] = 3.0
    changes = RandAppearanced("image").set_random_state(0)
    for _ in range(20):
        changed = changes({"image": image})["image"]
        assert (changed[:, 9:15, 9:15, 9:15].mean((1, 2, 3)) > changed[:, :6].mean((1, 2, 3))).all()
