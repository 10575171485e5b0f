import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats_utils.commands import cli
from brats_utils.commands.cli import main
from brats_utils.saving.checkpoints import load_checkpoint


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "phantom", "train", "predict", "evaluate", "export"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m brats_utils {command}" in capsys.readouterr().out


def test_phantom_writes_a_data_set(tmp_path, capsys):
    main(["phantom", "--out", str(tmp_path / "p"), "--cases", "3", "--spacing", "6"])
    assert len(list((tmp_path / "p/labelsTr").iterdir())) == 3
    assert "3 cases of 6 mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [*(("--spacing", value) for value in (0, -1, "nan", "inf", 60)), ("--seed", -1), ("--cases", 0)],
)
def test_a_phantom_of_impossible_numbers_is_refused(tmp_path, capsys, option, value):
    message = refused(capsys, "phantom", "--out", tmp_path / "p", option, value)
    assert message.startswith(("error: spacing: found", "error: Found seed"))
    assert list(tmp_path.iterdir()) == []


def test_predict_writes_labels_on_the_grid_of_the_scan(phantom_dir, checkpoint, tmp_path):
    scan = phantom_dir / "imagesTr/PHANTOM_001.nii.gz"
    main(["predict", "--checkpoint", str(checkpoint), "--image", str(scan), "--out", str(tmp_path)])
    labels, image = nib.load(tmp_path / "segmentation.nii.gz"), nib.load(scan)
    assert labels.shape == image.shape[:3]
    assert np.array_equal(labels.affine, image.affine)
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2, 3}


def test_predict_says_what_it_removed_and_keeps_it_on_request(phantom_dir, checkpoint, tmp_path, monkeypatch, capsys):
    def predict(predictor, case, out_dir, **how):
        removed = {"pieces": 0 if predictor.keep_small else 2, "ml": 0.0 if predictor.keep_small else 0.5, "ET_ml": 0.0}
        return {"warnings": [], "volumes_ml": {}, "label_schema": "msd", "removed": removed}

    monkeypatch.setattr(cli, "predict_patient", predict)
    command = ["predict", "--checkpoint", str(checkpoint), "--image", "x", "--out", str(tmp_path)]
    main(command)
    assert (
        "Removed as too small: 2 pieces of tumour, 0.50 mL in all; ET, 0.00 mL. --keep-small" in capsys.readouterr().out
    )
    main([*command, "--keep-small"])
    assert "Removed" not in capsys.readouterr().out


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


def test_evaluate_asks_how_the_labels_of_a_folder_of_patients_are_numbered(phantom_dir, checkpoint, tmp_path, capsys):
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
    assert "expected label_schema, or --schema with one of msd, brats2021, brats2023" in refused(capsys, *command)
    main([*command, "--schema", "msd"])
    assert pd.read_csv(tmp_path / "out/cases.csv")["case_id"].tolist() == ["one"]


def test_an_earlier_evaluation_is_not_overwritten_unasked(phantom_dir, checkpoint, tmp_path, capsys):
    (tmp_path / "cases.csv").write_text("mine")
    command = ("evaluate", "--checkpoint", checkpoint, "--data", tmp_path / "none", "--out", tmp_path)
    assert "found the cases.csv of an earlier evaluation, expected none" in refused(capsys, *command)
    assert "not found, or no folder" in refused(capsys, *command, "--overwrite")
    assert (tmp_path / "cases.csv").read_text() == "mine"


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


def test_train_refuses_a_bad_case_before_it_begins_in_whatever_part_it_is(small_phantom, tmp_path, capsys):
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
        assert f"{label}: cannot be read" in refused(capsys, *command)
        label.write_bytes(whole)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["checked.json"]


def test_train_takes_the_numbering_from_dataset_json_and_records_it(small_phantom, tmp_path, capsys):
    changes = {"max_train_epochs": 1, "batch_size": 1}
    settings = [text for name, value in changes.items() for text in ("--set", name, str(value))]
    command = ["train", "--preset", "smoke", "--out", str(tmp_path / "out"), "--wandb-mode", "disabled", *settings]
    main([*command, "--data", str(small_phantom)])
    assert load_checkpoint(tmp_path / "out/checkpoints/best.pt").config["label_schema"] == "msd"
    assert "numbered as msd, as dataset.json says" in capsys.readouterr().out
    assert "set label_schema to it" in refused(capsys, *command, "--data", small_phantom, "--schema", "brats2021")


def test_scans_given_in_two_ways_or_in_part_are_refused(checkpoint, tmp_path, capsys):
    for given in (["--image", "a", "--t1", "b"], []):
        message = refused(capsys, "predict", "--checkpoint", checkpoint, "--out", tmp_path, *given)
        assert "or --patients with a folder, or --flair, --t1, --t1gd, --t2 (one may be missing)" in message
    message = refused(capsys, "predict", "--checkpoint", checkpoint, "--out", tmp_path, "--flair", "a", "--t1", "b")
    assert "found no T1gd and no T2w" in message


def test_missing_checkpoint_is_one_sentence_and_no_traceback(phantom_dir, tmp_path, capsys):
    message = refused(capsys, "evaluate", "--checkpoint", tmp_path / "no.pt", "--data", phantom_dir, "--out", tmp_path)
    assert message.startswith("error: ")
    assert "03_train makes it" in message
    assert "Traceback" not in message


def test_the_librarys_sentence_is_shown_and_not_its_cause(checkpoint, tmp_path, capsys):
    (tmp_path / "dataset.json").write_text("[]")
    command = ("evaluate", "--checkpoint", checkpoint, "--data", tmp_path, "--out", tmp_path / "out")
    assert "Expected MSD's or nnU-Net's keys; copy it again." in refused(capsys, *command)
    command = ("export", "--checkpoint", checkpoint, "--out", tmp_path / "dataset.json/sub")
    assert "could not be written" in refused(capsys, *command)


def test_what_monai_wraps_is_shown_without_the_wrapping(checkpoint, phantom_dir, tmp_path, capsys, monkeypatch):
    def fail(*arguments, **settings):
        try:
            raise ValueError("scan.nii.gz: found a moon")
        except ValueError as error:
            raise RuntimeError("applying transform <Compose>") from error

    monkeypatch.setattr(cli, "find_cases", fail)
    command = ("evaluate", "--checkpoint", checkpoint, "--data", phantom_dir, "--out", tmp_path)
    assert refused(capsys, *command) == "error: scan.nii.gz: found a moon\n"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_place_of_the_output_folder_is_refused_before_predicting(
    checkpoint, phantom_dir, tmp_path, capsys, name
):
    (tmp_path / "file").write_text("mine")
    shared = ("--checkpoint", checkpoint, "--out", tmp_path / name)
    for command in (("predict", "--image", "a"), ("predict", "--patients", "a"), ("evaluate", "--data", phantom_dir)):
        assert f"found the file {tmp_path / 'file'}, expected a folder" in refused(capsys, *command, *shared)


def test_an_output_folder_that_cannot_be_written_is_refused_before_predicting(
    checkpoint, phantom_dir, tmp_path, capsys, monkeypatch
):
    def refuse(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli, "TemporaryFile", refuse)  # root, as in containers, may write anywhere
    for command in (("predict", "--image", "a"), ("evaluate", "--data", phantom_dir)):
        message = refused(capsys, *command, "--checkpoint", checkpoint, "--out", tmp_path / "out")
        assert "nothing can be written there (Permission denied), expected a folder of yours" in message


def test_wrong_number_of_channels_is_named_although_monai_wraps_the_error(checkpoint, tmp_path, capsys):
    volume = np.random.default_rng(0).random((16, 16, 16, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    message = refused(
        capsys, "predict", "--checkpoint", checkpoint, "--image", tmp_path / "scan.nii.gz", "--out", tmp_path
    )
    assert "found 3 channels" in message


def test_metrics_that_are_no_json_are_named(checkpoint, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("")
    command = ("export", "--checkpoint", checkpoint, "--out", tmp_path / "out", "--metrics", tmp_path / "metrics.json")
    assert f"--metrics {tmp_path / 'metrics.json'}: found no JSON (Expecting value" in refused(capsys, *command)


def test_unknown_notebook_and_unknown_parameter_are_refused(capsys):
    assert "expected some of 01_setup" in refused(capsys, "run", "05_nothing")
    assert "unknown parameter" in refused(capsys, "run", "-p", "prset", "smoke")
    assert "expected str" in refused(capsys, "run", "-p", "preset", "3")
    assert "output_dir: found 3 (int), expected str" in refused(capsys, "run", "-p", "output_dir", "3")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("overrides", "{seedd: 1}", "seedd: unknown setting. Did you mean seed"),
        ("overrides", "{1: 2}", "1: unknown setting"),
        ("preset", "foo", "preset: found 'foo', expected one of smoke"),
    ],
)
def test_an_unknown_setting_is_refused_before_a_notebook_runs(capsys, monkeypatch, name, value, message):
    monkeypatch.setattr(cli, "run_notebooks", lambda *arguments, **how: pytest.fail("a notebook ran"))
    assert message in refused(capsys, "run", "-p", name, value)


@pytest.mark.parametrize("command", [("run", "-p", "overrides"), ("train", "--set", "overrides")], ids=lambda c: c[0])
def test_malformed_yaml_is_one_sentence(command, capsys):
    assert "overrides: found '{seed: 1', which is no YAML" in refused(capsys, *command, "{seed: 1")
