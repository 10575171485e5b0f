"""What a checkpoint holds, and its file: written whole or not at all, read without running any code."""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SegResNet
from safetensors import safe_open
from safetensors.torch import save

from brats_utils.model import build_model
from brats_utils.paths import display_path, replacing, resolve_path
from brats_utils.saving.archive import read_archive
from brats_utils.saving.bundle import read_bundle
from brats_utils.saving.zoo import fetch_zoo_bundle, find_zoo_folder

CHECKPOINT_FORMAT = 2
"""Raise when the content of a checkpoint changes in a way that older code cannot read."""

PRETRAINED = Path(__file__).parents[1] / "weights" / "pretrained.safetensors"
"""The pretrained network, trained on phantoms alone; its model card lies beside it. `make weights` makes it."""

SETTINGS = (
    "init_filters", "dropout_prob", "spacing_mm", "inference_roi_size", "label_schema", "dataset_dir", "seed"
)  # fmt: skip
"""What must be known of a training to predict with its network, and to say what it is."""

UNTRAINED: dict[str, Any] = dict(run_id="", batch_losses=[], history=[], optimizer={}, schedule={}, scaler={})
"""What of a checkpoint only a training needs, left out."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, foreign or unsafe to load."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training leaves behind: enough to rebuild the model and to go on.

    Random generators are not in it: training seeds them anew at each step, from the seed, the epoch and the batch.
    """

    model: Mapping[str, torch.Tensor]  # state dict of the network
    config: Mapping[str, Any]  # the settings of the run, as `Config.model_dump(mode="json")` gives them
    epoch: int  # epochs finished
    batch_losses: list[float]  # of the next epoch, if it was interrupted; as many batches of it are done
    mean_dice: float  # validation mean Dice of these weights
    best_dice: float  # the best so far
    history: list[dict[str, float]]  # a row of plain numbers an epoch
    run_id: str  # W&B run that made it
    optimizer: Mapping[str, Any]  # state dict
    schedule: Mapping[str, Any]  # state dict
    scaler: Mapping[str, Any]  # state dict of the float16 gradient scaler, empty without one

    def check_settings(self) -> None:
        """Refuse a checkpoint that does not say how its network is used: a `CheckpointError` where some of `SETTINGS` are missing."""
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


def name_weights(name: str) -> Path:
    """Turn what a user names into a file: `pretrained` into `PRETRAINED`, `monai` into MONAI's bundle, all else into a path.

    The bundle is downloaded when `load_checkpoint` is asked for it.
    """
    words = {"pretrained": PRETRAINED, "monai": find_zoo_folder()}
    return words.get(name, Path(name))


def find_checkpoint(name: str, *, best: Path) -> Path:
    """Find the file of `name_weights`; with an empty name the user's own `best`, or, with a line that says so, `PRETRAINED`."""
    if name or best.is_file():
        return resolve_path(name_weights(name)) if name else best
    substitute = "so the pretrained network (trained on phantoms alone) is used. Notebook 03_train trains your own."
    print(f"{display_path(best)}: not found, {substitute}")
    return PRETRAINED


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> Path:
    """Write a checkpoint whole or not at all; the one that is at `path` now moves to `previous`, once this is written.

    A damaged one is not moved: it would take the place of a good one.
    """
    with replacing(path) as temporary:
        torch.save({"format": CHECKPOINT_FORMAT, **vars(checkpoint)}, temporary)
        if previous:
            with suppress(CheckpointError):
                load_checkpoint(path)
                os.replace(path, previous)
    return path


def save_weights(path: Path, checkpoint: Checkpoint) -> Path:
    """Write a network to hand on: weights in half precision and settings, as safetensors, which can hold no code.

    What only a training needs is left out, and of folders outside the repository all but their names.
    """
    settings = {}
    for key, value in checkpoint.config.items():
        is_folder = isinstance(value, str) and Path(value).is_absolute()
        settings[key] = Path(value).name if is_folder else value
    dropped = {"model": {}, **UNTRAINED}
    text = json.dumps({"format": CHECKPOINT_FORMAT, **vars(checkpoint), "config": settings, **dropped})
    weights = {name: tensor.cpu().half().contiguous() for name, tensor in checkpoint.model.items()}
    metadata = {"checkpoint": text, "sha256": _compute_checksum(text, weights)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, metadata))
    return path


def _compute_checksum(text: str, weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _read_weights(path: Path) -> dict[str, Any]:
    """Read the content of a file of `save_weights`, with the weights in single precision; of another its metadata."""
    with safe_open(path, "pt") as file:
        metadata, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "checkpoint" not in metadata:
        return metadata
    if metadata.get("sha256") != _compute_checksum(metadata["checkpoint"], weights):
        raise OSError("the checksum is not the one that was written")
    return json.loads(metadata["checkpoint"]) | {"model": {name: tensor.float() for name, tensor in weights.items()}}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file of `save_checkpoint` or `save_weights`, or a MONAI bundle's folder; no code of it is ever run.

    Raises:
        CheckpointError: missing, damaged or foreign file, or one that would need arbitrary code to load.
        BundleError: a bundle that cannot be used here.
        ZooError: MONAI's own could not be fetched.
    """
    if path.resolve() == find_zoo_folder().resolve():
        path = fetch_zoo_bundle()
    if path.is_dir():
        return Checkpoint(epoch=0, **UNTRAINED, **read_bundle(path))
    name = display_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{name}: not found. Notebook 03_train makes it: run that first, or give another checkpoint. "
            "`pretrained` is the bundled network."
        )
    try:
        content = _read_weights(path) if path.suffix == ".safetensors" else read_archive(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name}: refused, because it holds more than tensors and plain values: {str(error).splitlines()[0]}. "
            "Expected a checkpoint written by notebook 03_train."
        ) from None
    except Exception as error:  # a damaged list of contents makes each library raise what it likes
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
