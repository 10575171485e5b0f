"""What looks odd in a scan is said, and the scan is used all the same."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch
from scans import LPS, read_files, set_voxel, write_channels, write_labelled

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2021
from brats_utils.phantom.dataset import generate_case


def fill_air(volumes):
    for volume in volumes.values():
        volume[volume == 0] = np.random.default_rng(1).uniform(40, 60, np.count_nonzero(volume == 0))


def score(volume):
    """Z-score of the whole volume, air included."""
    volume -= volume.mean()
    volume /= volume.std()


def test_a_constant_background_is_recognised_before_a_channel_is_resampled(tmp_path):
    files = write_channels(tmp_path, change=lambda volumes: score(volumes["t2"]))
    scan = nib.load(files[3])
    shifted = scan.affine + 1.5 * np.eye(4)[:, [0]] * np.eye(4)[3]  # half a voxel to the side
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), shifted), files[3])
    found = read_files(*files, resample=True)
    assert "a constant background that is not 0 (T2w" in " ".join(found.warnings)
    assert found.brain == (slice(4, 37), slice(4, 44), slice(4, 32))


def warnings_of(files):
    return " ".join(read_files(*files).warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"change": set_voxel("t1", -5)}, r"negative values \(T1w 1 voxels\)"),
        ({"affine": np.diag([1, 1, 5.0, 1])}, "voxels of 1 x 1 x 5 mm"),
        ({"affine": np.diag([3.5, 3.5, 3.5, 1]), "change": fill_air}, "Is the skull still there"),
        ({"affine": np.diag([1.0, 1, 1, 1])}, "voxel size in the header is wrong"),
        ({"change": lambda v: v["flair"].__setitem__(slice(0, 12), 0)}, "FLAIR: 25% of the brain are 0"),
        ({"change": lambda v: np.minimum(v["t2"], 110, out=v["t2"])}, "T2w: .*have the highest value, 110"),
    ],
    ids=["negative", "thick slices", "skull", "small", "field of view", "saturated"],
)
def test_odd_scans_are_used_with_a_warning(tmp_path, settings, message):
    assert re.search(message, warnings_of(write_channels(tmp_path, **settings)))


def test_a_channel_of_negative_values_is_not_taken_for_saturated(tmp_path):
    text = warnings_of(write_channels(tmp_path, change=lambda volumes: np.negative(volumes["t2"], out=volumes["t2"])))
    assert "negative values (T2w" in text
    assert "highest value" not in text


def test_a_header_without_orientation_is_warned_of(tmp_path):
    files = write_channels(tmp_path)
    image = nib.load(files[0])
    image = nib.Nifti1Image(np.asarray(image.dataobj), None)
    nib.save(image, files[0])
    with pytest.raises(CaseError, match="another position"):
        read_files(*files)
    assert "gives no orientation" in " ".join(read_files(*files, resample=True).warnings)


def test_voxels_of_4_mm_are_not_over_4_mm_because_a_header_is_rounded(tmp_path):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turned = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert "Small lesions" not in warnings_of(write_channels(tmp_path, affine=turned @ np.diag([4, 4, 4, 1])))


def test_z_scored_scans_that_were_padded_with_zeros_are_not_taken_for_a_skull(tmp_path):
    def score_and_pad(volumes):
        for name, volume in volumes.items():
            score(volume)
            volumes[name] = np.pad(volume, 3)

    text = warnings_of(write_channels(tmp_path, change=score_and_pad, affine=np.diag([3.9, 3.9, 3.9, 1])))
    assert "constant background that is not 0" in text
    assert "skull" not in text


def test_a_scan_that_is_a_multiple_of_another_is_read(tmp_path):  # without dividing by zero: warnings are errors
    case = write_labelled(tmp_path)
    scan = nib.load(case.images[0]).get_fdata(dtype=np.float32)
    scan[..., 2] = 2 * scan[..., 1]
    nib.save(nib.Nifti1Image(scan, LPS), case.images[0])
    assert torch.equal(read_case(case).image.as_tensor()[2], torch.from_numpy(scan[..., 2]))


@pytest.fixture(scope="module")
def enhancing():
    """Channels of a phantom whose enhancement is plain, as a (4, X, Y, Z) array with its affine."""
    case = generate_case(0, 7, spacing_mm=4.0)
    return np.moveaxis(case.image, -1, 0).astype(np.float32), case.affine


@pytest.mark.parametrize("swapped", [None, (0, 1), (0, 3), (1, 2), (1, 3), (2, 3)], ids=str)
def test_swapped_channels_are_warned_of(tmp_path, enhancing, swapped):
    channels, affine = enhancing
    order = list(range(4))
    if swapped:
        first, second = swapped
        order[first], order[second] = second, first
    nib.save(nib.Nifti1Image(np.moveaxis(channels[order], 0, -1), affine), tmp_path / "scan.nii.gz")
    warnings = read_files(tmp_path / "scan.nii.gz").warnings
    assert len(warnings) == bool(swapped), warnings
    assert all("swapped" in text or "order of the channels" in text for text in warnings)


@pytest.mark.slow
def test_real_scans_are_read_without_a_false_alarm_about_their_channels(real_dir):
    cases = find_cases(real_dir / "tcga", schema=BRATS_2021)
    for case in [*cases, *find_cases(real_dir / "msd/Task01_BrainTumour")]:
        assert not [text for text in read_case(case).warnings if "swapped" in text or "order" in text]
