"""A label is compared with the scan voxel by voxel, so it must lie on it."""

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils import evaluation
from brats_utils.cases.layouts import LabelledScan
from brats_utils.cases.reader import ScanError
from brats_utils.cases.truth import load_truth
from brats_utils.evaluation import evaluate_cases, format_summary, predict_case, tabulate_summary
from brats_utils.labels import MSD, LabelError, labels_to_regions
from brats_utils.metrics import score_row, summarise_scores

SHAPE = (12, 14, 10)
AFFINE = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1, -72], [0, 0, 0, 1]])  # LPS
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
TRUTH = labels_to_regions(torch.from_numpy(LABELS), MSD)


@pytest.fixture
def case(tmp_path):
    """A scan, and its label on the same grid."""
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 4), np.float32), AFFINE), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(LABELS, AFFINE), tmp_path / "label.nii.gz")
    return LabelledScan("one", tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz")


def turn(image, codes):
    wanted = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_a_label_whose_axes_run_otherwise_is_turned_onto_the_scan(case, codes):
    nib.save(turn(nib.load(case.label), codes), case.label)
    assert torch.equal(load_truth(case, schema=MSD), TRUTH)


def test_a_fourth_axis_of_one_is_left_out(case):
    nib.save(nib.Nifti1Image(LABELS[..., None], AFFINE), case.label)
    assert torch.equal(load_truth(case, schema=MSD), TRUTH)


@pytest.mark.parametrize("affine", [None, np.eye(4)], ids=["no code", "identity"])
def test_a_label_without_a_position_is_taken_as_it_lies(case, affine):
    nib.save(nib.Nifti1Image(LABELS, affine), case.label)
    assert torch.equal(load_truth(case, schema=MSD), TRUTH)


def test_rounding_in_a_header_is_no_other_grid(case):
    nib.save(nib.Nifti1Image(LABELS, AFFINE + 1e-3), case.label)
    assert torch.equal(load_truth(case, schema=MSD), TRUTH)


@pytest.mark.parametrize("position", [True, False])
def test_a_label_of_another_shape_than_the_scan_names_both_files(case, position):
    nib.save(nib.Nifti1Image(LABELS[1:], AFFINE if position else None), case.label)
    with pytest.raises(
        LabelError, match=r"label\.nii\.gz: .* \(11, 14, 10\), expected \(12, 14, 10\) as in .*scan\.nii"
    ):
        load_truth(case, schema=MSD)


@pytest.mark.parametrize(
    "change",
    [lambda affine: affine @ np.diag([1, 1, 2, 1]), lambda affine: affine + 5 * (np.arange(4) == 3)],
    ids=["voxel size", "place"],
)
def test_a_label_on_another_grid_is_refused(case, change):
    nib.save(nib.Nifti1Image(LABELS, change(AFFINE)), case.label)
    with pytest.raises(LabelError, match=r"label\.nii\.gz: found a label at another position .* than .*scan\.nii\.gz"):
        load_truth(case, schema=MSD)


def test_a_damaged_label_is_named(case):
    case.label.write_bytes(case.label.read_bytes()[:400])
    with pytest.raises(OSError, match=r"label\.nii\.gz: cannot be read"):
        load_truth(case, schema=MSD)


def test_a_wrong_label_is_noticed_before_the_prediction(case, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", lambda *arguments: pytest.fail("predicted first"))
    nib.save(nib.Nifti1Image(LABELS, 2 * AFFINE), case.label)
    with pytest.raises(LabelError, match="another position"):
        predict_case(None, case, truth_schema=MSD)


def test_all_labels_are_checked_before_the_first_prediction(case, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", lambda *arguments: pytest.fail("predicted first"))
    nib.save(nib.Nifti1Image(LABELS + 4, AFFINE), tmp_path / "other.nii.gz")
    cases = [case, LabelledScan("two", case.image, tmp_path / "other.nii.gz")]
    with pytest.raises(LabelError, match=r"other\.nii\.gz: found label values"):
        evaluate_cases(None, cases, tmp_path / "out", truth_schema=MSD)


def test_all_scans_are_opened_before_the_first_prediction(case, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", lambda *arguments: pytest.fail("predicted first"))
    scans = [case.image, case.image, case.image, tmp_path / "t2.nii.gz"]
    with pytest.raises(ScanError, match=r"^two: .*t2\.nii\.gz: not found"):
        evaluate_cases(None, [case, LabelledScan("two", scans, case.label)], tmp_path / "out", truth_schema=MSD)


def test_an_evaluation_that_breaks_off_leaves_no_scores_of_an_earlier_one(case, tmp_path):
    (tmp_path / "cases.csv").write_text("old")
    (tmp_path / "summary.json").write_text("old")
    with pytest.raises(ScanError, match="holds one value everywhere"):
        evaluate_cases(None, [case], tmp_path, truth_schema=MSD)
    assert not {"cases.csv", "summary.json"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("count", "interval"), [(2, "too few cases"), (3, "1.000 to 1.000")])
def test_summary_of_few_cases_gives_no_interval(count, interval):
    row = score_row("one", TRUTH, TRUTH, spacing_mm=(1.0, 1.0, 1.0))
    summary = summarise_scores([row] * count)
    assert set(tabulate_summary(summary)["95% interval"]) >= {interval}
    heading, *lines = format_summary(summary).splitlines()
    assert all(line.index(interval) == heading.index("95%") for line in lines)


def test_a_case_whose_scan_is_refused_is_named(case):
    with pytest.raises(ScanError, match=r"^one: .* holds one value everywhere"):
        predict_case(None, case, truth_schema=MSD)
