"""A predictor is scored on what can be used, all of it, and an earlier evaluation is kept until then."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils import evaluation
from brats_utils.cases.case import Case, CaseError
from brats_utils.evaluation import evaluate_cases, format_summary, read_evaluation, tabulate_summary
from brats_utils.inference import Prediction
from brats_utils.labels import MSD, REGIONS, LabelError, labels_to_regions
from brats_utils.metrics import score_row, summarise_scores

SHAPE = (12, 14, 10)
AFFINE = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1, -72], [0, 0, 0, 1]])  # LPS
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
TRUTH = labels_to_regions(torch.from_numpy(LABELS), MSD)


@pytest.fixture
def case(tmp_path):
    """A scan, and its label on the same grid."""
    scan = np.random.default_rng(0).random((*SHAPE, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(scan, AFFINE), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(LABELS, AFFINE), tmp_path / "label.nii.gz")
    return Case("one", (tmp_path / "scan.nii.gz",), tmp_path / "label.nii.gz", MSD)


def fail(*arguments):
    pytest.fail("predicted first")


def test_a_wrong_label_is_noticed_before_the_prediction(case, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", fail)
    nib.save(nib.Nifti1Image(LABELS, 2 * AFFINE), case.label)
    with pytest.raises(LabelError, match="another position"):
        evaluate_cases(None, [case], tmp_path / "scores")


def test_all_labels_are_checked_before_the_first_prediction(case, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", fail)
    nib.save(nib.Nifti1Image(LABELS + 4, AFFINE), tmp_path / "other.nii.gz")
    other = replace(case, case_id="two", label=tmp_path / "other.nii.gz")
    with pytest.raises(LabelError, match=r"other\.nii\.gz: found label values"):
        evaluate_cases(None, [case, other], tmp_path / "out")


def test_all_scans_are_opened_before_the_first_prediction(case, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "predict_scan", fail)
    bad = [replace(case, case_id=name, images=(tmp_path / f"{name}.nii.gz",)) for name in ("two", "three", "four")]
    with pytest.raises(CaseError, match=r"two\.nii\.gz: not found.* Nor can these be used: three, four\."):
        evaluate_cases(None, [case, *bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def read_folder(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def earlier(tmp_path):
    """An evaluation of another case."""
    (tmp_path / "out/predictions").mkdir(parents=True)
    for name in ("cases.csv", "summary.json", "predictions/before.nii.gz"):
        (tmp_path / "out" / name).write_text("old")
    return tmp_path / "out"


@pytest.mark.parametrize("error", [KeyboardInterrupt, CaseError])
def test_an_evaluation_that_breaks_off_leaves_the_earlier_one_as_it_was(case, earlier, monkeypatch, error):
    before = read_folder(earlier)

    def break_off(*arguments):
        raise error("enough")

    monkeypatch.setattr(evaluation, "predict_scan", break_off)
    with pytest.raises(error):
        evaluate_cases(None, [case], earlier)
    assert read_folder(earlier) == before
    assert sorted(path.name for path in earlier.iterdir()) == ["cases.csv", "predictions", "summary.json"]


def test_a_whole_evaluation_takes_the_place_of_the_earlier_one(case, earlier, monkeypatch):
    def know_the_truth(predictor, scan):
        trust = {region.name: 1.0 for region in REGIONS}
        brain = torch.ones(SHAPE, dtype=torch.bool)
        return Prediction(scan.regions.float(), None, scan.label, scan.regions, brain, trust, volumes_ml={}, removed={})

    monkeypatch.setattr(evaluation, "predict_scan", know_the_truth)
    table = evaluate_cases(None, [case], earlier)
    assert table[["case_id", "dice_WT"]].to_numpy().tolist() == [["one", 1.0]]
    old = [name for name, content in read_folder(earlier).items() if content == b"old"]
    assert old == ["predictions/before.nii.gz"]  # perhaps not ours, so it stays
    assert (earlier / "predictions/one.nii.gz").is_file()
    read, summary, counts = read_evaluation(earlier)
    assert read["case_id"].tolist() == ["one"]
    assert summary["WT"]["dice"] == 1
    assert counts.shape[0] == len(REGIONS)


def test_an_evaluation_that_is_not_there_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found no summary\.json\. Notebook 04_inference makes it"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(("count", "interval"), [(2, "too few cases"), (3, "1.000 to 1.000")])
def test_summary_of_few_cases_gives_no_interval(count, interval):
    row = score_row("one", TRUTH, TRUTH, spacing_mm=(1.0, 1.0, 1.0))
    summary = summarise_scores([row] * count)
    assert set(tabulate_summary(summary)["95% interval"]) >= {interval}
    heading, *lines = format_summary(summary).splitlines()
    assert all(line.index(interval) == heading.index("95%") for line in lines)


def test_the_table_says_whose_definition_each_score_follows():
    table = tabulate_summary(summarise_scores([score_row("one", TRUTH, TRUTH, spacing_mm=(1.0, 1.0, 1.0))]))
    years = {metric: definition for (_, metric), definition in table["definition"].items()}
    assert (years["hd95_mm"], years["lesion_hd95_mm"], years["nsd"]) == ("BraTS 2023", "BraTS 2023", "BraTS 2026")


def test_a_scan_that_is_refused_is_named(case, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 4), np.float32), AFFINE), case.images[0])
    with pytest.raises(CaseError, match=r"scan\.nii\.gz: FLAIR holds one value everywhere"):
        evaluate_cases(None, [case], tmp_path / "scores")
