"""Train the network in the box on phantoms and write its file: `make weights`. Interrupted, it goes on where it stopped.

Not part of `make bench`: it measures nothing, and takes as long as its recipe asks. First a training of a preset; then,
from its best checkpoint, more steps at a constant learning rate, whose weights are averaged: with the rate at nothing a
network settles on the phantoms, and finds less in patients (docs/phantom.md). In the end the output's bias is raised.
"""

from dataclasses import replace

import torch
from accelerate import PartialState
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from brats_utils.commands.train import build_loaders, build_state, train
from brats_utils.config import load_config
from brats_utils.loading import derive_seed
from brats_utils.model import choose_device
from brats_utils.paths import display_path, resolve_path
from brats_utils.saving.checkpoints import PRETRAINED, Checkpoint, load_checkpoint, save_weights
from brats_utils.saving.resume import BEST, LAST, PREVIOUS
from brats_utils.training import train_step, validate

RECIPE = dict(preset="laptop", overrides={})
"""A preset, and what is changed of it."""
CONSTANT = dict(phantom_cases=360, seed=1, initial_learning_rate=5e-4)
"""What is changed for the steps after it. Another seed: with 0, most test cases of `laptop` would be among these phantoms."""
STEPS, WARM_UP, FIRST_AVERAGED = 600, 60, 120
BIAS = (0.405, 0.0, 0.847)
"""Added to the logits of TC, WT and ET, so that a probability of .4, .5 and .3 becomes .5. Chosen on the 18 development
cases: in patients the network is less sure of core and enhancement than it could be."""
OUT = "runs/weights"


def main() -> None:
    """Train by the recipe, or go on; average; then write the network in half precision and say what it is."""
    config, folder = load_config(**RECIPE, output_dir=OUT), resolve_path(OUT) / "checkpoints"
    if not (folder / LAST).exists() or load_checkpoint(folder / LAST).epoch < config.max_train_epochs:
        begun = any((folder / name).exists() for name in (LAST, PREVIOUS))
        train(config, out_dir=OUT, wandb_mode="disabled", resume=begun)
    made = raise_bias(average_weights(load_checkpoint(folder / BEST)))
    size = save_weights(PRETRAINED, made).stat().st_size / 1e6
    print(f"{display_path(PRETRAINED)}: {size:.1f} MB, validation mean Dice {made.mean_dice:.3f}")


def average_weights(start: Checkpoint) -> Checkpoint:
    """Take `STEPS` more at a constant learning rate, and average the weights after each from `FIRST_AVERAGED` on."""
    config = load_config(**RECIPE | {"overrides": RECIPE["overrides"] | CONSTANT})
    processes = PartialState(cpu=choose_device().type == "cpu")
    train_loader, val_loader, _ = build_loaders(config, resolve_path(OUT) / "constant", processes=processes)
    state = build_state(config, num_steps=STEPS)
    state.model.load_state_dict(start.build_model().state_dict())
    for group in state.optimizer.param_groups:  # one cycle has left its own there: a 25th of the rate, more momentum
        group.update(initial_lr=config.initial_learning_rate, betas=(0.9, 0.999))
    state.schedule = LambdaLR(state.optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    state.model.train()
    averaged, batches, step = AveragedModel(state.model), train_loader.batch_sampler, 0
    while step < STEPS:
        for batch in tqdm(train_loader, f"Constant learning rate, {step} of {STEPS} steps"):
            torch.manual_seed(derive_seed(config.seed, step))
            train_step(state, batch)
            step += 1
            if step > FIRST_AVERAGED:
                averaged.update_parameters(state.model)
            if step == STEPS:
                break
        batches.epoch += 1  # type: ignore[union-attr]
    state.model.load_state_dict(averaged.module.state_dict())
    dice = validate(state, val_loader, roi_size=config.inference_roi_size, spacing_mm=config.spacing_mm).mean()
    return replace(start, model=state.model.state_dict(), mean_dice=float(dice), best_dice=float(dice))


def raise_bias(network: Checkpoint) -> Checkpoint:
    """Add `BIAS` to the logits."""
    name = "conv_final.2.conv.bias"
    return replace(network, model={**network.model, name: network.model[name] + torch.tensor(BIAS)})


if __name__ == "__main__":
    main()
