"""Train the pretrained network on phantoms and write its file: `make weights`. Interrupted, it goes on where it stopped.

Not part of `make bench`: it measures nothing, and takes as long as its recipe asks. First a training of a preset; then,
from its best checkpoint, more steps at a constant learning rate, whose weights are averaged: with the rate at nothing a
network settles on the phantoms, and finds less in patients (docs/phantom.md). In the end the output's bias is raised.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from brats_utils.commands.train import build_loaders, build_state, train
from brats_utils.config import FINE_TUNING, Config, load_config
from brats_utils.model import build_model, choose_device
from brats_utils.paths import display_path, resolve_path
from brats_utils.saving.checkpoints import PRETRAINED, Checkpoint, load_checkpoint, save_checkpoint, save_weights
from brats_utils.saving.resume import BEST, LAST, PREVIOUS
from brats_utils.training import train_epoch, validate

RECIPE: dict[str, Any] = dict(preset="laptop", overrides={})
"""A preset, and what is changed of it."""
CONSTANT = dict(phantom_cases=360, initial_learning_rate=5e-4)
"""What is changed for the epochs after it."""
EPOCHS, FIRST_AVERAGED, WARM_UP = 10, 2, 60
"""Of these epochs: how many, which is the first that is averaged, counted from 0; and the steps until the rate is reached."""
BIAS = (0.405, 0.0, 0.847)
"""Added to the logits of TC, WT and ET, so that a probability of .4, .5 and .3 becomes .5. Chosen on the 18 development
cases: in patients the network is less sure of core and enhancement than it could be."""
OUT = "runs/weights"


def main() -> None:
    """Train by the recipe, or go on; average; then write the network in half precision and say what it is."""
    config, folder = load_recipe(f"{OUT}/start.pt"), resolve_path(OUT) / "checkpoints"
    if not (folder / LAST).exists() or load_checkpoint(folder / LAST).epoch < config.max_train_epochs:
        draw_start(resolve_path(config.init))
        begun = any((folder / name).exists() for name in (LAST, PREVIOUS))
        train(config, out_dir=OUT, wandb_mode="disabled", resume=begun)
    made = correct_bias(raise_bias(average_weights(folder / BEST)))
    size = save_weights(PRETRAINED, made).stat().st_size / 1e6
    print(f"{display_path(PRETRAINED)}: {size:.1f} MB, validation mean Dice {made.mean_dice:.3f}")


def draw_start(path: Path) -> None:
    """Write the initial weights as an earlier version drew them: after those of a convolution that it timed the CPU with.

    Another draw gives another network; by how much another is in docs/phantom.md.
    """
    config = load_config(**RECIPE)
    state = build_state(config, num_steps=1)
    torch.manual_seed(config.seed)
    torch.nn.Conv3d(16, 16, 3)
    drawn = build_model(init_filters=config.init_filters, dropout_prob=config.dropout_prob)
    state.model.load_state_dict(drawn.state_dict())
    save_checkpoint(path, state.snapshot(config=config.model_dump(mode="json"), run_id=""))


def load_recipe(init: str, **changes: Any) -> Config:
    """Load the settings of a training from the weights in a file: the preset's, not those of fine-tuning."""
    plain = load_config(**RECIPE)
    overrides = {key: getattr(plain, key) for key in FINE_TUNING} | RECIPE["overrides"] | changes
    return load_config(**RECIPE | {"overrides": overrides}, output_dir=OUT, init=init)


def average_weights(start: Path) -> Checkpoint:
    """Train a checkpoint `EPOCHS` more at a constant learning rate, and average the weights after each step but those of the first few."""
    config = load_recipe(str(start), **CONSTANT)
    processes = PartialState(cpu=choose_device().type == "cpu")
    train_loader, val_loader, _ = build_loaders(config, resolve_path(OUT) / "constant", processes=processes)
    state = build_state(config, num_steps=EPOCHS * len(train_loader))
    for group in state.optimizer.param_groups:  # one cycle has left its own there: a 25th of the rate, more momentum
        group.update(initial_lr=config.initial_learning_rate, betas=(0.9, 0.999))
    state.schedule = LambdaLR(state.optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    averaged = AveragedModel(state.model)
    for epoch in tqdm(range(EPOCHS), "Constant learning rate"):
        average = (lambda: averaged.update_parameters(state.model)) if epoch >= FIRST_AVERAGED else lambda: None
        train_epoch(state, train_loader, seed=config.seed, after_step=average)
        state.epoch, state.batch_losses = epoch + 1, []
    state.model.load_state_dict(averaged.module.state_dict())
    dice = validate(state, val_loader, roi_size=config.inference_roi_size, spacing_mm=config.spacing_mm).mean()
    return replace(load_checkpoint(start), model=state.model.state_dict(), mean_dice=float(dice), best_dice=float(dice))


def raise_bias(network: Checkpoint) -> Checkpoint:
    """Add `BIAS` to the logits."""
    name = "conv_final.2.conv.bias"
    return replace(network, model={**network.model, name: network.model[name] + torch.tensor(BIAS)})


def correct_bias(network: Checkpoint) -> Checkpoint:
    """Have the bias field corrected before it predicts. Phantoms are trained on without: theirs is small."""
    return replace(network, config={**network.config, "bias_correction": True})


if __name__ == "__main__":
    main()
