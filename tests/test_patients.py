"""From a patient's files to everything that is written about them."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.inference import build_predictor, predict_scan
from brats_utils.labels import MSD
from brats_utils.patients import prediction as patients
from brats_utils.patients.prediction import predict_patient, predict_patients
from brats_utils.saving.checkpoints import load_checkpoint


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return build_predictor([load_checkpoint(checkpoint)], flips=True)


@pytest.fixture(scope="module")
def result(predictor, phantom_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("patient") / "out"
    case = Case("one", (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",))
    return out_dir, case, predict_patient(predictor, case, out_dir)


def test_every_volume_lies_on_the_scan(result):
    out_dir, case, _ = result
    shapes = {path.name: nib.load(path).shape for path in out_dir.glob("*.nii.gz")}
    scan = nib.load(case.images[0])
    grid = scan.shape[:3]
    three = dict.fromkeys(("regions.nii.gz", "probabilities.nii.gz", "uncertainty.nii.gz"), (*grid, 3))
    assert shapes == {"segmentation.nii.gz": grid} | three
    assert all(np.array_equal(nib.load(path).affine, scan.affine) for path in out_dir.glob("*.nii.gz"))


def test_probabilities_regions_and_labels_tell_the_same_story(result):
    out_dir, _, content = result
    labels, regions, probabilities = (
        nib.load(out_dir / f"{name}.nii.gz").get_fdata() for name in ("segmentation", "regions", "probabilities")
    )
    assert 0 <= probabilities.min() <= probabilities.max() <= 1
    assert np.array_equal(regions[..., 1] > 0, labels > 0)
    assert (probabilities[regions[..., 1] > 0].max(axis=-1) > 0.5 - 1 / 255).all()
    assert content["volumes_ml"]["WT"] == pytest.approx((labels > 0).sum() * 4**3 / 1000, abs=1e-3)


def test_what_was_written_can_be_read_by_a_machine_and_by_a_person(result):
    out_dir, _, content = result
    assert json.loads((out_dir / "prediction.json").read_text()) == content
    assert content["note"] == "Not for clinical use."
    with Image.open(out_dir / "preview.png") as picture:
        assert picture.width > 1000


@pytest.fixture
def islands(predictor, monkeypatch):
    """Finds one large piece of tumour, and two small ones of which one enhances, whatever it sees."""

    def predict(predictor, image):
        found = torch.zeros(3, *image.shape[1:])
        found[:2, 8:12, 8:12, 8:12] = 1  # 4 x 4 x 4 voxels of 4 mm: 4.1 mL
        found[2, 8, 8, 8:10] = 1  # 2 voxels of it enhance: .128 mL
        found[1, 4, 4, 4] = 1  # a voxel, .064 mL
        found[:, 15, 15, 15:18] = 1  # 3 voxels, all of which enhance: .192 mL
        yield found

    monkeypatch.setattr("brats_utils.inference.predict_members", predict)
    return replace(predictor, flips=False)


def test_what_is_removed_as_too_small_is_said(islands, phantom_dir, tmp_path):
    case = Case("one", (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",))
    content = predict_patient(islands, case, tmp_path / "out")
    assert content["removed"] == {"pieces": 2, "ml": 0.256, "ET_ml": 0.32}
    assert content["keep_small"] is False
    assert content["volumes_ml"]["ET"] == 0
    assert json.loads((tmp_path / "out/prediction.json").read_text())["removed"] == content["removed"]


def test_what_is_small_is_kept_on_request(islands, phantom_dir, tmp_path):
    case = Case("one", (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",))
    removed = predict_patient(islands, case, tmp_path / "out")
    kept = predict_patient(replace(islands, keep_small=True), case, tmp_path / "all")
    assert kept["removed"] == {"pieces": 0, "ml": 0, "ET_ml": 0}
    gained = {name: kept["volumes_ml"][name] - removed["volumes_ml"][name] for name in ("WT", "ET")}
    assert gained == pytest.approx({"WT": removed["removed"]["ml"], "ET": removed["removed"]["ET_ml"]})
    labels = nib.load(tmp_path / "all/segmentation.nii.gz").get_fdata()
    assert (labels > 0).sum() * 0.064 == pytest.approx(kept["volumes_ml"]["WT"])
    assert (labels == MSD.enhancing).sum() == 5


def test_patients_csv_says_what_was_removed_and_goes_on_from_one_that_did_not(islands, two_patients, tmp_path):
    table = predict_patients(islands, two_patients, tmp_path / "out")
    assert table["removed_ml"].tolist() == [0.256] * 2
    assert table["removed_ET_ml"].tolist() == [0.32] * 2
    path = tmp_path / "out/A/prediction.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "removed"}))
    (tmp_path / "out/patients.csv").write_text("patient,status,TC_ml,WT_ml,ET_ml,expected_dice,reason\n")
    again = predict_patients(islands, two_patients, tmp_path / "out")
    assert again["status"].tolist() == ["earlier"] * 2
    assert again["removed_ml"].isna().tolist() == [True, False]


def test_an_earlier_prediction_is_not_overwritten_unasked(result, predictor):
    out_dir, case, content = result
    with pytest.raises(CaseError, match="found an earlier prediction"):
        predict_patient(predictor, replace(case, case_id="two"), out_dir)
    assert json.loads((out_dir / "prediction.json").read_text()) == content


def test_a_segmentation_that_is_not_ours_is_not_overwritten_unasked(predictor, result, tmp_path):
    (tmp_path / "segmentation.nii.gz").write_text("by hand")
    with pytest.raises(CaseError, match=r"found files of no prediction \(segmentation\.nii\.gz\), expected none"):
        predict_patient(predictor, result[1], tmp_path)
    assert (tmp_path / "segmentation.nii.gz").read_text() == "by hand"


def test_a_prediction_that_breaks_off_leaves_what_was_there(result, predictor, tmp_path, monkeypatch):
    out_dir, case, _ = result
    shutil.copytree(out_dir, tmp_path / "out")
    fail_once(monkeypatch, KeyboardInterrupt(), at="plot_prediction")
    with pytest.raises(KeyboardInterrupt):
        predict_patient(predictor, case, tmp_path / "out", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in out_dir.iterdir()
    }


def test_predictions_in_the_folders_of_the_scans_are_neither_scans_nor_labels(result, tmp_path):
    out_dir, case, _ = result
    shutil.copytree(out_dir, tmp_path / "one")
    shutil.copy(case.images[0], tmp_path / "one.nii.gz")
    assert find_cases(tmp_path, labelled=False) == [Case("one", (tmp_path / "one.nii.gz",))]
    shutil.move(tmp_path / "one.nii.gz", tmp_path / "one/scan.nii.gz")
    assert find_cases(tmp_path, labelled=False) == [Case("one", (tmp_path / "one/scan.nii.gz",))]
    with pytest.raises(CaseError, match="found no labelled patient"):
        find_cases(tmp_path, schema=MSD)


def test_overwriting_leaves_nothing_of_the_earlier_prediction(result, predictor, tmp_path):
    out_dir, case, _ = result
    shutil.copytree(out_dir, tmp_path / "out")
    assert (tmp_path / "out/uncertainty.nii.gz").is_file()
    predict_patient(replace(predictor, flips=False), case, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/uncertainty.nii.gz").exists()


@pytest.mark.slow
def test_one_bad_patient_does_not_stop_the_rest(predictor, phantom_dir, tmp_path):
    folder = tmp_path / "patients"
    folder.mkdir()
    for name in ("PHANTOM_001", "PHANTOM_002"):
        (folder / f"{name}.nii.gz").symlink_to(phantom_dir / f"imagesTr/{name}.nii.gz")
    (folder / "BROKEN.nii.gz").write_bytes((phantom_dir / "imagesTr/PHANTOM_003.nii.gz").read_bytes()[:20000])
    table = predict_patients(predictor, folder, tmp_path / "out").set_index("patient")
    assert table["status"].eq("failed").to_dict() == {"BROKEN": True, "PHANTOM_001": False, "PHANTOM_002": False}
    assert "cannot be read" in table.loc["BROKEN", "reason"]
    assert pd.read_csv(tmp_path / "out/patients.csv")["patient"].tolist() == list(table.index)
    assert not (tmp_path / "out/BROKEN").exists()


@pytest.fixture
def two_patients(phantom_dir, tmp_path):
    """A folder of two patients, A and B."""
    folder = tmp_path / "patients"
    folder.mkdir()
    for name, source in (("A", "PHANTOM_001"), ("B", "PHANTOM_002")):
        (folder / f"{name}.nii.gz").symlink_to(phantom_dir / f"imagesTr/{source}.nii.gz")
    return folder


def fail_once(monkeypatch, error, *, at="predict_scan"):
    """Let the first patient fail."""

    def fail(*arguments, **settings):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(patients, at, fail)


def test_a_patient_too_large_for_the_memory_does_not_stop_the_rest(predictor, two_patients, tmp_path, monkeypatch):
    fail_once(monkeypatch, MemoryError())
    table = predict_patients(predictor, two_patients, tmp_path / "out")
    assert table["status"].eq("failed").tolist() == [True, False]
    assert table["reason"][0] == "MemoryError"


def test_what_monai_wraps_is_listed_without_the_wrapping(predictor, two_patients, tmp_path, monkeypatch):
    error = RuntimeError("applying transform <Compose>")
    error.__cause__ = ValueError("found a moon")
    fail_once(monkeypatch, error)
    assert predict_patients(predictor, two_patients, tmp_path / "out")["reason"][0] == "found a moon"


@pytest.mark.slow
def test_the_table_is_written_when_interrupted(predictor, two_patients, tmp_path, monkeypatch):
    def predict(*arguments):
        fail_once(monkeypatch, KeyboardInterrupt())
        return predict_scan(*arguments)

    monkeypatch.setattr(patients, "predict_scan", predict)
    with pytest.raises(KeyboardInterrupt):
        predict_patients(predictor, two_patients, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/patients.csv")["patient"].tolist() == ["A"]


@pytest.mark.slow
def test_going_on_keeps_the_numbers_of_patients_who_are_done(predictor, two_patients, tmp_path, monkeypatch):
    fail_once(monkeypatch, MemoryError())
    first = predict_patients(predictor, two_patients, tmp_path / "out").set_index("patient")
    second = predict_patients(predictor, two_patients, tmp_path / "out").set_index("patient")
    assert first["status"].eq("failed").to_dict() == {"A": True, "B": False}
    assert second["status"]["B"] == "earlier"
    assert second["status"]["A"] in ("ok", "warning")
    assert second.loc["B"].drop("status").equals(first.loc["B"].drop("status"))
    assert pd.read_csv(tmp_path / "out/patients.csv")["WT_ml"].notna().all()


def test_a_damaged_earlier_prediction_is_named(predictor, two_patients, tmp_path, monkeypatch):
    monkeypatch.setattr(patients, "predict_patient", lambda *arguments, **how: pytest.fail("predicted"))
    for name, text in (("A", "{"), ("B", '{"warnings": []}')):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "prediction.json").write_text(text)
    table = predict_patients(predictor, two_patients, tmp_path / "out")
    assert table["reason"].str.contains(r"prediction\.json: cannot be read .* expected an earlier prediction").all()


def test_a_table_that_is_not_ours_is_not_overwritten_unasked(predictor, two_patients):
    (two_patients / "patients.csv").write_text("patient,born\nA,1950\n")
    with pytest.raises(CaseError, match=r"patients\.csv: found another table, expected none"):
        predict_patients(predictor, two_patients, two_patients)
