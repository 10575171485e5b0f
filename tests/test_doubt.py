"""The bias field in a prediction, and predictions that expect little of themselves."""

import json
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.commands import cli
from brats_utils.commands.cli import main
from brats_utils.inference import build_predictor, prepare_image
from brats_utils.patients import prediction as patients
from brats_utils.patients.prediction import predict_patient, predict_patients
from brats_utils.saving.checkpoints import PRETRAINED, CheckpointError, load_checkpoint
from brats_utils.uncertainty import LOW_EXPECTED_DICE, is_doubtful


@pytest.fixture(scope="module")
def one(phantom_dir):
    return Case("one", (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",))


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return build_predictor([load_checkpoint(checkpoint)])


def with_correction(checkpoint):
    return replace(checkpoint, config={**checkpoint.config, "bias_correction": True})


def test_the_checkpoint_decides_and_an_older_one_does_without(checkpoint):
    old = load_checkpoint(checkpoint)
    assert "bias_correction" not in old.config
    assert not build_predictor([old]).bias_correction
    assert build_predictor([with_correction(old)]).bias_correction
    assert build_predictor([load_checkpoint(PRETRAINED)]).bias_correction


def test_networks_with_and_without_correction_are_not_averaged(checkpoint):
    old = load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match="bias correction"):
        build_predictor([old, with_correction(old)])


def test_the_correction_changes_flair_and_leaves_what_it_was_given(predictor, one):
    image = read_case(one).tensors["image"]
    before = image.as_tensor().clone()
    plain = prepare_image(predictor, image.clone())
    corrected = prepare_image(replace(predictor, bias_correction=True), image)
    assert torch.equal(image.as_tensor(), before)
    assert not torch.equal(plain[0], corrected[0])
    assert torch.equal(plain[1:].as_tensor(), corrected[1:].as_tensor())


def test_the_option_turns_it_off(monkeypatch, tmp_path):
    seen = []

    def stop(predictor, *_, **__):
        seen.append(predictor.bias_correction)
        raise ValueError("enough")

    monkeypatch.setattr(cli, "predict_patient", stop)
    for more in ([], ["--no-bias-correction"]):
        with pytest.raises(SystemExit):
            main(["predict", "--checkpoint", "pretrained", "--image", "x", "--out", str(tmp_path), *more])
    assert seen == [True, False]


def test_doubt_begins_below_the_limit_and_needs_a_number():
    assert is_doubtful(LOW_EXPECTED_DICE - 0.01)
    assert not is_doubtful(LOW_EXPECTED_DICE)
    assert not is_doubtful(math.nan)
    assert not is_doubtful(None)


def expect(monkeypatch, *means):
    """Have predictions expect these of themselves, one after the other."""
    numbers = iter(means)
    monkeypatch.setattr(
        "brats_utils.inference.expected_dice",
        lambda *_: dict(zip(("TC", "WT", "ET", "mean"), [next(numbers)] * 4, strict=True)),
    )


def test_a_doubtful_prediction_is_called_so_in_json(predictor, one, tmp_path, monkeypatch):
    expect(monkeypatch, 0.4)
    assert predict_patient(predictor, one, tmp_path)["doubtful"] is True
    assert json.loads((tmp_path / "prediction.json").read_text())["doubtful"] is True


def test_the_terminal_says_it_in_words(checkpoint, one, tmp_path, monkeypatch, capsys):
    expect(monkeypatch, 0.4)
    main(
        [
            "predict",
            "--no-flips",
            "--checkpoint",
            str(checkpoint),
            "--image",
            str(one.images[0]),
            "--out",
            str(tmp_path),
        ]
    )
    assert re.search(r"Doubtful: expected Dice 0\.40, below 0\.65\. Look at", capsys.readouterr().out)


def test_the_most_doubtful_patient_comes_first_on_request(predictor, phantom_dir, tmp_path, monkeypatch):
    cases = [Case(name, (phantom_dir / "imagesTr/PHANTOM_001.nii.gz",)) for name in ("A", "B")]
    monkeypatch.setattr(patients, "find_cases", lambda *_, **__: cases)
    expect(monkeypatch, 0.9, 0.4)
    table = predict_patients(predictor, phantom_dir, tmp_path, doubtful_first=True)
    assert table["patient"].tolist() == ["B", "A"]
    assert pd.read_csv(tmp_path / "patients.csv")["doubtful"].tolist() == [True, False]
