"""Each command does its work and leaves its files."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats_utils.commands import cli
from brats_utils.commands.cli import main
from brats_utils.saving.checkpoints import load_checkpoint


@pytest.mark.parametrize("command", ["run", "phantom", "train", "predict", "evaluate", "export"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m brats_utils {command}" in capsys.readouterr().out


@pytest.mark.slow
def test_phantom_writes_a_data_set(tmp_path, capsys):
    main(["phantom", "--out", str(tmp_path / "p"), "--cases", "3", "--spacing", "6"])
    assert len(list((tmp_path / "p/labelsTr").iterdir())) == 3
    assert "3 cases of 6 mm" in capsys.readouterr().out


def test_predict_writes_labels_on_the_grid_of_the_scan(phantom_dir, checkpoint, tmp_path):
    scan = phantom_dir / "imagesTr/PHANTOM_001.nii.gz"
    main(["predict", "--checkpoint", str(checkpoint), "--image", str(scan), "--out", str(tmp_path)])
    labels, image = nib.load(tmp_path / "segmentation.nii.gz"), nib.load(scan)
    assert labels.shape == image.shape[:3]
    assert np.array_equal(labels.affine, image.affine)
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2, 3}


def test_predict_says_what_it_removed_and_keeps_it_on_request(checkpoint, tmp_path, monkeypatch, capsys):
    def predict(predictor, case, out_dir, **how):
        removed = {"pieces": 0 if predictor.keep_small else 2, "ml": 0.0 if predictor.keep_small else 0.5, "ET_ml": 0.0}
        sure = {"doubtful": False, "expected_dice": {"mean": 0.9}}
        return {"warnings": [], "volumes_ml": {}, "label_schema": "msd", "removed": removed, **sure}

    monkeypatch.setattr(cli, "predict_patient", predict)
    command = ["predict", "--checkpoint", str(checkpoint), "--image", "x", "--out", str(tmp_path)]
    main(command)
    assert (
        "Removed as too small: 2 connected components of tumour, 0.50 mL in all; ET, 0.00 mL. --keep-small"
        in capsys.readouterr().out
    )
    main([*command, "--keep-small"])
    assert "Removed" not in capsys.readouterr().out


@pytest.mark.slow
def test_predict_takes_a_patient_of_four_files(real_dir, checkpoint, tmp_path):
    patient = real_dir / "tcga/TCGA-FG-6692"
    files = {"--flair": "flair", "--t1": "t1", "--t1gd": "t1ce", "--t2": "t2"}
    arguments = [text for option, name in files.items() for text in (option, str(patient / f"{name}.nii.gz"))]
    main(["predict", "--checkpoint", str(checkpoint), *arguments, "--out", str(tmp_path)])
    labels, scan = nib.load(tmp_path / "segmentation.nii.gz"), nib.load(patient / "flair.nii.gz")
    assert np.array_equal(labels.affine, scan.affine)
    assert int(labels.header["qform_code"]) == int(scan.header["qform_code"])


def test_patients_who_are_done_count_as_done(phantom_dir, checkpoint, tmp_path, capsys):
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients/A.nii.gz").symlink_to(phantom_dir / "imagesTr/PHANTOM_001.nii.gz")
    for expected in ("1 of 1 patients predicted;", "1 of 1 patients predicted, 1 of them earlier"):
        main(["predict", "--checkpoint", str(checkpoint), "--no-flips", "--patients", str(tmp_path / "patients"), "--out", str(tmp_path / "out")])  # fmt: skip
        assert expected in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_scores_a_real_case(real_dir, checkpoint, tmp_path, capsys):
    data, official = real_dir / "msd/Task01_BrainTumour", tmp_path / "official"
    main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path), "--official", str(official)])  # fmt: skip
    assert f"cd {official} && brats-evaluate " in capsys.readouterr().out
    assert {path.parent.name: path.name for path in official.rglob("*.nii.gz")} == {
        "references": "00001-000_BRATS_009.nii.gz",
        "predictions": "BRATS_009_00001-000.nii.gz",
    }
    (row,) = pd.read_csv(tmp_path / "cases.csv").to_dict("records")
    assert row["case_id"] == "BRATS_009"
    assert 0 <= row["dice_WT"] <= 1
    assert (tmp_path / "summary.json").is_file()
    assert (tmp_path / "predictions/BRATS_009.nii.gz").is_file()


@pytest.mark.slow
def test_evaluate_asks_for_the_label_convention_of_a_folder_of_patients(phantom_dir, checkpoint, tmp_path, refused):
    patient = tmp_path / "patients/one"
    patient.mkdir(parents=True)
    (patient / "scan.nii.gz").symlink_to(phantom_dir / "imagesTr/PHANTOM_001.nii.gz")
    (patient / "seg.nii.gz").symlink_to(phantom_dir / "labelsTr/PHANTOM_001.nii.gz")
    command = [
        "evaluate",
        "--checkpoint",
        str(checkpoint),
        "--data",
        str(patient.parent),
        "--out",
        str(tmp_path / "out"),
    ]
    assert "expected label_schema, or --schema with one of msd, brats2021, brats2023" in refused(*command)
    main([*command, "--schema", "msd"])
    assert pd.read_csv(tmp_path / "out/cases.csv")["case_id"].tolist() == ["one"]


@pytest.mark.slow
def test_train_leaves_checkpoints(tmp_path, capsys):
    settings = {"phantom_cases": 3, "max_train_epochs": 1, "batch_size": 1, "seed": 7, "spacing_mm": 6}
    changes = [text for name, value in settings.items() for text in ("--set", name, str(value))]
    data = str(tmp_path / "phantom")
    main(
        [
            "train",
            "--preset",
            "smoke",
            "--data",
            data,
            "--out",
            str(tmp_path / "out"),
            "--wandb-mode",
            "offline",
            *changes,
        ]
    )
    assert {path.name for path in (tmp_path / "out/checkpoints").glob("*.pt")} == {"best.pt", "last.pt"}
    assert "validation Dice" in capsys.readouterr().out


@pytest.fixture
def small_phantom(phantom_dir, tmp_path):
    """Three labelled cases."""
    document = json.loads((phantom_dir / "dataset.json").read_text())
    folder = shutil.copytree(phantom_dir, tmp_path / "data")
    (folder / "dataset.json").write_text(json.dumps(document | {"training": document["training"][:3]}))
    return folder


def test_train_refuses_a_bad_case_before_it_begins_in_whatever_part_it_is(small_phantom, tmp_path, refused):
    command = (
        "train",
        "--preset",
        "smoke",
        "--data",
        small_phantom,
        "--out",
        tmp_path / "out",
        "--wandb-mode",
        "disabled",
    )
    for number in (1, 2, 3):  # one each for training, validation and test
        label = small_phantom / f"labelsTr/PHANTOM_00{number}.nii.gz"
        whole = label.read_bytes()
        label.write_bytes(whole[:400])
        assert f"{label}: cannot be read" in refused(*command)
        label.write_bytes(whole)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["checked.json"]


@pytest.mark.slow
def test_train_takes_the_label_convention_from_dataset_json_and_records_it(small_phantom, tmp_path, refused, capsys):
    changes = {"max_train_epochs": 1, "batch_size": 1}
    settings = [text for name, value in changes.items() for text in ("--set", name, str(value))]
    command = ["train", "--preset", "smoke", "--out", str(tmp_path / "out"), "--wandb-mode", "disabled", *settings]
    main([*command, "--data", str(small_phantom)])
    assert load_checkpoint(tmp_path / "out/checkpoints/best.pt").config["label_schema"] == "msd"
    assert "in the msd convention, as dataset.json says" in capsys.readouterr().out
    assert "set label_schema to it" in refused(*command, "--data", small_phantom, "--schema", "brats2021")
