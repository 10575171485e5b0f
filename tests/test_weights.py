"""The pretrained network, files of weights, and trainings that start from them."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from damage import damage
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LambdaLR

from benchmarks import weights as recipe
from brats_utils import training
from brats_utils.commands.cli import main
from brats_utils.commands.train import build_state
from brats_utils.config import load_config
from brats_utils.model import build_model
from brats_utils.saving.checkpoints import (
    PRETRAINED,
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    name_weights,
    save_weights,
)
from brats_utils.saving.resume import load_progress, load_start, save_progress
from brats_utils.training import train_step

SMOKE = {"init_filters": 8, "spacing_mm": 4.0}
"""The settings of the fixture's checkpoint that weights must fit."""


@pytest.fixture(scope="module")
def weights(checkpoint, tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp("weights") / "a.safetensors", load_checkpoint(checkpoint))


def read_header(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def test_weights_come_back_in_single_precision_with_their_settings(weights, checkpoint):
    there, back = load_checkpoint(checkpoint), load_checkpoint(weights)
    assert {tensor.dtype for tensor in back.model.values()} == {torch.float32}
    assert all(torch.equal(tensor.half().float(), back.model[name]) for name, tensor in there.model.items())
    assert (back.config, back.epoch, back.mean_dice) == (there.config, there.epoch, there.mean_dice)
    assert not any((back.run_id, back.optimizer, back.schedule, back.scaler, back.history, back.batch_losses))
    assert weights.stat().st_size < 0.6 * checkpoint.stat().st_size


def test_half_precision_moves_no_probability_by_more_than_a_hundredth(weights, checkpoint):
    image = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = (load_checkpoint(path).build_model()(image).sigmoid() for path in (checkpoint, weights))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, second, atol=0.01, rtol=0)


def test_folders_of_a_machine_are_reduced_to_their_names(tmp_path, checkpoint):
    content = load_checkpoint(checkpoint)
    content.config.update(dataset_dir=str(tmp_path / "scans"), checkpoint_dir="runs/a/checkpoints")
    path = save_weights(tmp_path / "a.safetensors", content)
    assert str(tmp_path).encode() not in path.read_bytes()
    config = load_checkpoint(path).config
    assert (config["dataset_dir"], config["checkpoint_dir"]) == ("scans", "runs/a/checkpoints")


def test_a_byte_of_weights_that_changed_anywhere_is_noticed_or_does_no_harm(tmp_path, checkpoint):
    """A small file, so that many of the bytes are in its list of contents."""
    content, refused = load_checkpoint(checkpoint), 0
    content.model.clear()
    content.model["weights"] = torch.arange(8.0)
    whole = save_weights(tmp_path / "whole.safetensors", content).read_bytes()
    for data in damage(whole):
        (tmp_path / "a.safetensors").write_bytes(data)
        try:
            loaded = load_checkpoint(tmp_path / "a.safetensors")
        except CheckpointError:
            refused += 1
        else:
            assert torch.equal(loaded.model["weights"], torch.arange(8.0))
            assert loaded.config == content.config
    assert refused > 250


def test_weights_of_other_software_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "a.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"found \['format'\], .* not a checkpoint of this tutorial"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_the_pretrained_network_is_small_and_ships_with_the_package():
    assert PRETRAINED.stat().st_size < 5_000_000
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"]["brats_utils.weights"] == ["*"]
    card = (PRETRAINED.parent / "README.md").read_text()
    assert "Not for clinical use" in card
    assert "Apache-2.0" in card


def test_the_pretrained_network_says_what_it_is_and_names_no_machine():
    content, header = load_checkpoint(PRETRAINED), json.dumps(read_header(PRETRAINED))
    content.check_settings()
    assert content.config["dataset_dir"].startswith("data/phantom-2.0mm-")
    assert content.mean_dice > 0.5
    assert not re.search(r"(?<![\w.])(/|~/|[A-Z]:\\)\w", header)


def test_a_word_or_a_path_is_turned_into_a_file(tmp_path, capsys):
    assert name_weights("pretrained") == PRETRAINED
    assert name_weights("./pretrained") == Path("pretrained")
    best = tmp_path / "best.pt"
    assert find_checkpoint("", best=best) == find_checkpoint("pretrained", best=best) == PRETRAINED
    assert capsys.readouterr().out.count("the pretrained network (trained on phantoms alone) is used") == 1
    best.touch()
    assert find_checkpoint("", best=best) == best
    assert find_checkpoint(str(tmp_path / "other.pt"), best=best) == tmp_path / "other.pt"
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_pretrained_network_predicts_evaluates_and_is_exported(phantom_dir, tmp_path):
    patient = tmp_path / "patients/one"
    patient.mkdir(parents=True)
    for part, name in (("imagesTr", "scan"), ("labelsTr", "seg")):
        (patient / f"{name}.nii.gz").symlink_to(phantom_dir / part / "PHANTOM_001.nii.gz")
    use = ["--checkpoint", "pretrained", "--no-flips", "--out"]
    main(["predict", *use, str(tmp_path / "a"), "--image", str(patient / "scan.nii.gz")])
    assert (tmp_path / "a/segmentation.nii.gz").is_file()
    main(["evaluate", *use, str(tmp_path / "b"), "--data", str(patient.parent), "--schema", "msd"])
    assert pd.read_csv(tmp_path / "b/cases.csv")["dice_WT"][0] > 0.1, "at 4 mm, half as fine as its own voxels"
    main(["export", "--checkpoint", "pretrained", "--out", str(tmp_path / "c")])
    assert (tmp_path / "c/models/model.pt").is_file()


@pytest.mark.slow
def test_make_weights_trains_by_its_recipe_goes_on_and_writes_the_file(phantom_dir, tmp_path, monkeypatch, capsys):
    assert load_config(**recipe.RECIPE).dataset_dir.startswith("data/phantom-2.0mm-")
    settings = recipe.load_recipe("start.pt").model_dump()
    plain = load_config(**recipe.RECIPE).model_dump()
    assert {key for key in plain if plain[key] != settings[key]} == {"init", "checkpoint_dir"}
    monkeypatch.setattr(recipe, "OUT", str(tmp_path / "run"))
    monkeypatch.setattr(recipe, "PRETRAINED", tmp_path / "a.safetensors")
    overrides = {"max_train_epochs": 1, "batch_size": 1}
    monkeypatch.setattr(recipe, "RECIPE", {"preset": "smoke", "data": str(phantom_dir), "overrides": overrides})
    for name, value in {"CONSTANT": {}, "EPOCHS": 2, "WARM_UP": 2, "FIRST_AVERAGED": 1}.items():
        monkeypatch.setattr(recipe, name, value)
    rates = []

    def step(state, batch):
        if isinstance(state.schedule, LambdaLR):  # of the training before it is another
            rates.append(state.optimizer.param_groups[0]["lr"])
        return train_step(state, batch)

    monkeypatch.setattr(training, "train_step", step)
    for _ in range(2):  # the second finds the training finished
        recipe.main()
    rate = load_config("smoke").initial_learning_rate
    steps = len(rates) // 2
    assert steps == 2 * 4, "two epochs of the four cases for training"
    assert rates == pytest.approx([rate / 2, *[rate] * (steps - 1)] * 2)
    made, trained = (load_checkpoint(tmp_path / name) for name in ("a.safetensors", "run/checkpoints/best.pt"))
    assert made.epoch == trained.epoch == 1
    moved = made.model["conv_final.2.conv.bias"] - trained.model["conv_final.2.conv.bias"]
    assert torch.allclose(moved, torch.tensor(recipe.BIAS), atol=0.1), "so few steps move it little"
    assert capsys.readouterr().out.count("MB, validation mean Dice") == 2


def test_init_gives_a_training_the_weights_of_a_checkpoint(checkpoint, capsys):
    state = build_state(load_config("smoke", init=str(checkpoint)), num_steps=2)
    expected = load_checkpoint(checkpoint).model
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.model.state_dict().items())
    assert "Weights start from" in capsys.readouterr().out
    state = build_state(load_config("smoke", {"seed": 1}), num_steps=2)
    assert not torch.equal(state.model.state_dict()["convInit.conv.weight"], expected["convInit.conv.weight"])


def test_weights_of_other_settings_are_refused_by_name(checkpoint):
    model = build_model(init_filters=16, dropout_prob=0.0)
    message = r"init_filters: 16 here, 8 in the weights; spacing_mm: 2.0 here, 4.0 in .* {'init_filters': 8, 'spacing_mm': 4.0}"
    with pytest.raises(CheckpointError, match=message):
        load_start(model, str(checkpoint), init_filters=16, spacing_mm=2.0)


def test_start_weights_that_are_not_there_are_refused():
    with pytest.raises(CheckpointError, match=r"none\.pt: not found.* `pretrained` is the bundled network"):
        load_start(build_model(init_filters=8, dropout_prob=0.0), "none.pt", **SMOKE)


def test_a_training_that_goes_on_keeps_its_start_and_one_of_before_had_none(tmp_path):
    state = build_state(load_config("smoke"), num_steps=2)
    old = {"seed": 0}
    save_progress(state, tmp_path, config=old, run_id="", is_best=False)
    assert load_progress(tmp_path, config=old | {"init": ""}).epoch == 0
    with pytest.raises(CheckpointError, match="'init': ' there, pretrained now'"):
        load_progress(tmp_path, config=old | {"init": "pretrained"})


@pytest.mark.slow
def test_train_starts_from_a_checkpoint(phantom_dir, checkpoint, tmp_path, capsys):
    settings = {"max_train_epochs": 1, "batch_size": 1}
    changes = [text for name, value in settings.items() for text in ("--set", name, str(value))]
    where = ["--data", str(phantom_dir), "--out", str(tmp_path), "--wandb-mode", "disabled"]
    main(["train", "--preset", "smoke", "--init", str(checkpoint), *where, *changes])
    last = load_checkpoint(tmp_path / "checkpoints/last.pt")
    assert (last.epoch, last.config["init"], last.config["initial_learning_rate"]) == (1, str(checkpoint), 3e-4)
    start = load_checkpoint(checkpoint).model
    moved = max(float((tensor - start[name]).abs().max()) for name, tensor in last.model.items())
    assert 0 < moved < 0.05
    assert np.isfinite(last.mean_dice)
