"""Train the network in the box on phantoms and write its file: `make weights`. Interrupted, it goes on where it stopped.

Not part of `make bench`: it measures nothing, and takes as long as its recipe asks.
"""

from brats_utils.commands.train import train
from brats_utils.config import load_config
from brats_utils.paths import display_path, resolve_path
from brats_utils.saving.checkpoints import PRETRAINED, load_checkpoint, save_weights
from brats_utils.saving.resume import BEST, LAST, PREVIOUS

RECIPE = dict(preset="laptop", overrides={})
"""A preset, and what is changed of it."""
OUT = "runs/weights"


def main() -> None:
    """Train by the recipe, or go on; then write the best checkpoint in half precision and say what it is."""
    config, folder = load_config(**RECIPE, output_dir=OUT), resolve_path(OUT) / "checkpoints"
    begun = any((folder / name).exists() for name in (LAST, PREVIOUS))
    train(config, out_dir=OUT, wandb_mode="disabled", resume=begun)
    best = load_checkpoint(folder / BEST)
    size = save_weights(PRETRAINED, best).stat().st_size / 1e6
    print(f"{display_path(PRETRAINED)}: {size:.1f} MB, epoch {best.epoch}, validation mean Dice {best.mean_dice:.3f}")


if __name__ == "__main__":
    main()
