"""A label comes onto the grid of its scan, or is refused with the names of both files."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scans import LABELS, LPS, turn, write_labelled

from brats_utils.cases.case import CaseError
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD, LabelError, labels_to_regions

TRUTH = labels_to_regions(torch.from_numpy(LABELS), MSD)


@pytest.fixture
def case(tmp_path):
    return write_labelled(tmp_path)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_a_label_with_other_axes_is_reoriented_to_the_scan(case, codes):
    nib.save(turn(nib.load(case.label), codes), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


def test_a_fourth_axis_of_one_is_left_out(case):
    nib.save(nib.Nifti1Image(LABELS[..., None], LPS), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("affine", [None, np.eye(4)], ids=["no code", "identity"])
def test_a_label_without_a_position_is_taken_voxel_by_voxel(case, affine):
    nib.save(nib.Nifti1Image(LABELS, affine), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


def test_a_label_is_reoriented_to_a_scan_whose_true_affine_is_the_identity(case):
    nib.save(nib.Nifti1Image(np.asarray(nib.load(case.images[0]).dataobj), np.eye(4)), case.images[0])
    nib.save(turn(nib.Nifti1Image(LABELS, np.eye(4)), "LPS"), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_a_label_whose_true_affine_is_the_identity_is_reoriented_to_the_scan(case, codes):
    scan, label = np.asarray(nib.load(case.images[0]).dataobj), nib.Nifti1Image(LABELS, np.eye(4))
    nib.save(turn(nib.Nifti1Image(scan, np.eye(4)), codes), case.images[0])
    nib.save(label, case.label)
    expected = torch.from_numpy(np.array(turn(label, codes).dataobj))
    assert torch.equal(read_case(case).label, expected)


@pytest.mark.parametrize("in_background", [True, False])
def test_a_label_of_which_much_lies_in_the_background_is_warned_of(case, in_background):
    scan = nib.load(case.images[0]).get_fdata(dtype=np.float32)
    scan[:3] = 0
    nib.save(nib.Nifti1Image(scan, LPS), case.images[0])
    inside = np.where(np.arange(12) < 3, 0, 1)[:, None, None].astype(np.uint8)
    nib.save(nib.Nifti1Image(LABELS if in_background else LABELS * inside, LPS), case.label)
    assert ("of the label lie in the background" in " ".join(read_case(case).warnings)) == in_background


def test_rounding_in_a_header_is_no_other_grid(case):
    nib.save(nib.Nifti1Image(LABELS, LPS + 1e-3), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("position", [True, False])
def test_a_label_of_another_shape_than_the_scan_names_both_files(case, position):
    nib.save(nib.Nifti1Image(LABELS[1:], LPS if position else None), case.label)
    with pytest.raises(
        LabelError, match=r"label\.nii\.gz: .* \(11, 14, 10\), expected \(12, 14, 10\) as in .*scan\.nii"
    ):
        read_case(case)


@pytest.mark.parametrize(
    "change",
    [lambda affine: affine @ np.diag([1, 1, 2, 1]), lambda affine: affine + 5 * (np.arange(4) == 3)],
    ids=["voxel size", "place"],
)
def test_a_label_on_another_grid_is_refused(case, change):
    nib.save(nib.Nifti1Image(LABELS, change(LPS)), case.label)
    with pytest.raises(LabelError, match=r"label\.nii\.gz: found a label at another position .* than .*scan\.nii\.gz"):
        read_case(case)


def test_a_damaged_label_is_named(case):
    case.label.write_bytes(case.label.read_bytes()[:400])
    with pytest.raises(CaseError, match=r"label\.nii\.gz: cannot be read"):
        read_case(case)
