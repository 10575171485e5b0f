"""What a checkpoint holds, and its file: written whole or not at all, read without running any code."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SegResNet

from brats_utils.model import build_model
from brats_utils.paths import display_path, replacing

CHECKPOINT_FORMAT = 2
"""Raise when the content of a checkpoint changes in a way that older code cannot read."""

FOLDER = 0x10
"""Bit of a zip entry's attributes. A tensor never has it; with it, torch reads whatever is in memory."""


SETTINGS = (
    "init_filters", "dropout_prob", "spacing_mm", "inference_roi_size", "label_schema", "dataset_dir", "seed"
)  # fmt: skip
"""What must be known of a training to predict with its network, and to say what it is."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign or unsafe to load."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training leaves behind: enough to rebuild the model and to go on.

    Attributes:
        model: state dict of the network.
        config: the settings of the run, as `Config.model_dump(mode="json")` gives them.
        epoch: epochs finished.
        batch_losses: of the next epoch, if it was interrupted; as many batches of it are done.
        mean_dice: validation mean Dice of these weights.
        best_dice: the best so far.
        history: a row of plain numbers an epoch.
        run_id: W&B run that made it.
        optimizer: state dict.
        schedule: state dict.
        scaler: state dict of the float16 gradient scaler, empty without one.

    Random generators are not in it: training seeds them anew at each step, from the seed, the epoch and the batch.
    """

    model: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]
    epoch: int
    batch_losses: list[float]
    mean_dice: float
    best_dice: float
    history: list[dict[str, float]]
    run_id: str
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    scaler: Mapping[str, Any]

    def check_settings(self) -> None:
        """Refuse a checkpoint that does not say how its network is used: a `CheckpointError` where `SETTINGS` lack."""
        missing = [name for name in SETTINGS if name not in self.config]
        if missing:
            raise CheckpointError(
                f"The checkpoint's settings lack {', '.join(missing)}, expected all that it was trained with. Use "
                "another checkpoint, or train again."
            )

    def build_model(self) -> SegResNet:
        """Rebuild the network with these weights, in evaluation mode.

        Raises:
            CheckpointError: if the weights do not fit the architecture that the settings describe.
        """
        model = build_model(init_filters=self.config["init_filters"], dropout_prob=self.config["dropout_prob"])
        try:
            model.load_state_dict(dict(self.model))
        except RuntimeError as error:
            raise CheckpointError(f"The checkpoint's weights do not fit a SegResNet of its settings: {error}") from None
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> Path:
    """Write a checkpoint whole or not at all; the one that is at `path` now moves to `previous`, once this is written.

    A damaged one is not moved: it would take the place of a good one.
    """
    with replacing(path) as temporary:
        torch.save({"format": CHECKPOINT_FORMAT, **vars(checkpoint)}, temporary)
        if previous and _is_readable(path):
            os.replace(path, previous)
    return path


def _is_readable(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are ever unpickled.

    Raises:
        CheckpointError: missing, damaged or foreign file, or one that would need arbitrary code to load.
    """
    name = display_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{name}: not found. Notebook 03_train makes it: run that first, or give another checkpoint."
        )
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums it wrote
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & FOLDER]
            damaged = archive.testzip() or next(iter(folders), None)
        if damaged:
            raise OSError(f"{damaged} is not as it was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name}: refused, because it holds more than tensors and plain values: {str(error).splitlines()[0]}. "
            "Expected a checkpoint written by notebook 03_train."
        ) from None
    except Exception as error:  # a damaged list of contents makes zipfile and torch raise what they like
        raise CheckpointError(f"{name}: damaged ({error}). Use another checkpoint, or train again.") from None
    expected = set(Checkpoint.__dataclass_fields__) | {"format"}
    if not isinstance(content, dict) or set(content) != expected or content["format"] != CHECKPOINT_FORMAT:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{name}: found {found}, expected the keys {sorted(expected)} in format {CHECKPOINT_FORMAT}. "
            "It is not a checkpoint of this tutorial, or one of another version."
        )
    del content["format"]
    return Checkpoint(**content)
