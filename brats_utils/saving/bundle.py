"""A MONAI bundle as a checkpoint: what its configs say of the network, in our settings. None of its code is run.

`bundle_config` parses its configs; a step that is not known here is refused.

Source: the MONAI Bundle Specification, docs.monai.io/en/stable/mb_specification.html.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SegResNet

from brats_utils.cases.dataset_json import channel_of
from brats_utils.labels import CHANNELS, REGIONS, SCHEMAS
from brats_utils.model import ARCHITECTURE
from brats_utils.paths import display_path, say
from brats_utils.saving.archive import read_archive
from brats_utils.saving.bundle_config import BundleError, list_texts, load_config, name_target, read_section

PASSIVE_STEPS = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CopyItemsd")
"""They change neither voxels nor grid."""

CROP_RULE = "$lambda x: x != 0"
"""Of the bundles that `export` writes: it crops to the foreground, as `reader` does."""

RELEASED_AXES = "LPS"
"""Axes of the files in the BraTS releases, which a bundle without a step for them was trained on. Source: their headers."""


def read_bundle(folder: Path) -> dict[str, Any]:
    """Read `model`, `config` and `mean_dice` of a `Checkpoint` from a bundle's folder; a line says whose it is.

    The weights are permuted to the order of our channels and regions.

    Raises:
        BundleError: a file is missing, or a part of the configs is not understood; each is named.
    """
    try:
        configs = {name: load_config(folder, name) for name in ("inference", "metadata")}
        network = _read_network(configs["inference"])
        steps, inferer = (read_section(configs["inference"], name) for name in ("preprocessing", "inferer"))
        spacing_mm, axes = _read_preprocessing(steps, configs["metadata"])
        inputs, outputs = _read_order(configs["metadata"])
        config = network | {
            "spacing_mm": spacing_mm,
            "axes": axes,
            "inference_roi_size": _read_window(inferer),
            "label_schema": _read_schema(configs, outputs),
            "dataset_dir": str(configs["metadata"].get("data_source", "unknown data")),
            "seed": 0,
        }
        model = _permute(_read_weights(folder), inputs, outputs)
    except BundleError as error:
        raise BundleError(f"{display_path(folder)}: {error}") from None
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise BundleError(
            f"{display_path(folder)}: damaged, or no bundle of this kind ({type(error).__name__}: {error}). Expected a "
            "MONAI bundle of a SegResNet for brain tumours, with configs/inference.json, configs/metadata.json and "
            "models/model.pt."
        ) from None
    scores = configs["metadata"].get("eval_metrics") or {}
    mean_dice = float(scores.get("val_mean_dice", scores.get("validation_mean_dice", "nan")))
    say(_introduce(folder, configs["metadata"], mean_dice))
    return {"model": model, "config": config, "mean_dice": mean_dice, "best_dice": mean_dice}


def _read_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read `init_filters` and `dropout_prob`; the rest of the network must be that of `model.build_model`."""
    found = read_section(config, "network_def")
    name = name_target(found) if isinstance(found, dict) else found
    if name != "SegResNet":
        raise BundleError(f"network_def: found {name}, expected MONAI's SegResNet. Other networks cannot be used here.")
    defaults = {key: parameter.default for key, parameter in signature(SegResNet).parameters.items()}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    free = {"init_filters": given.get("init_filters", 8), "dropout_prob": given.get("dropout_prob") or 0.0}
    wanted = defaults | ARCHITECTURE | free
    actual = defaults | {"dropout_prob": 0.0} | {key: value for key, value in given.items() if key != "_target_"}
    differ = {key: value for key, value in actual.items() if key not in wanted or value != wanted[key]}
    if differ:
        expected = {key: wanted.get(key) for key in differ}
        raise BundleError(f"network_def: found {differ}, expected {expected}, as in the SegResNet of this tutorial.")
    return free


def _read_preprocessing(section: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[float, str]:
    """Read voxel size and axes; the steps must be ours, in our order: axes, crop, voxel size, z-score."""
    steps = [step for step in section["transforms"] if name_target(step) not in PASSIVE_STEPS]
    names = [name_target(step) for step in steps]
    order = ("Orientationd", "CropForegroundd", "Spacingd", "NormalizeIntensityd")
    if names != [name for name in order if name in names] or "NormalizeIntensityd" not in names:
        raise BundleError(
            f"preprocessing: found {', '.join(names) or 'no step'}, expected some of {', '.join(order)}, in this order and "
            "with the last. What another step does cannot be repeated here."
        )
    values = dict(zip(names, steps, strict=True))
    axes = values.get("Orientationd", {}).get("axcodes", RELEASED_AXES)
    pixdim = values.get("Spacingd", {}).get("pixdim")
    known = {
        "Orientationd": {"axcodes": axes, "labels": None},
        "CropForegroundd": {"source_key": "image", "select_fn": CROP_RULE},
        "Spacingd": {"pixdim": pixdim, "mode": "bilinear"},
        "NormalizeIntensityd": {"nonzero": True, "channel_wise": True},
    }
    for name, step in values.items():
        given = {key: value for key, value in step.items() if key not in ("_target_", "keys")}
        if given != known[name]:
            raise BundleError(f"preprocessing: found {name} with {given}, expected {known[name]}.")
    if not re.fullmatch("[RL][AP][SI]", str(axes)):
        raise BundleError(f"preprocessing: found axes to {axes}, expected RAS, or mirrored ones such as LPS.")
    return _read_voxel_size(pixdim, metadata), axes


def _read_voxel_size(pixdim: Any, metadata: Mapping[str, Any]) -> float:
    """Take the edge of a voxel in mm from the step that resamples; without one, from what the metadata say of the images."""
    if pixdim is None:  # as in "4 channel data, T1c, T1, T2, FLAIR at 1x1x1 mm"
        words = re.search(r"([\d.]+) ?x ?([\d.]+) ?x ?([\d.]+) ?mm", str(metadata.get("image_classes")))
        pixdim = [float(edge) for edge in words.groups()] if words else []
    edges = set(pixdim) if isinstance(pixdim, list) else {pixdim}
    if len(edges) != 1:
        raise BundleError(
            f"found voxels of {pixdim or 'unknown size'}, expected cubes: a Spacingd in preprocessing with three equal "
            "numbers, or '1x1x1 mm' in the metadata's image_classes."
        )
    return float(edges.pop())


def _read_window(inferer: Any) -> list[int]:
    """Read the sliding window in voxels."""
    name = name_target(inferer)
    sides = inferer.get("roi_size")
    if name != "SlidingWindowInferer" or not isinstance(sides, list) or len(sides) != 3:
        raise BundleError(
            f"inferer: found {name} with roi_size {sides}, expected a SlidingWindowInferer with three sides."
        )
    if any(not isinstance(side, int) or side < 16 or side % 8 for side in sides):
        raise BundleError(f"inferer: found windows of {sides}, expected multiples of 8, 16 or more.")
    return sides


def _read_order(metadata: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Find where in the bundle's order each of our channels, and each of our regions, stands."""
    described = metadata["network_data_format"]
    inputs = list(described["inputs"]["image"]["channel_def"].values())
    outputs = list(described["outputs"]["pred"]["channel_def"].values())
    channels = [channel_of(str(name)) for name in inputs]
    words = {region.name.lower(): region.name for region in REGIONS}
    words |= {region.title.lower(): region.name for region in REGIONS}
    spelled = [str(name).lower().replace("tumour", "tumor").replace(" ", "-") for name in outputs]
    regions = [words.get(name) for name in spelled]
    names = [region.name for region in REGIONS]
    for found, known, expected in ((inputs, channels, list(CHANNELS)), (outputs, regions, names)):
        if sorted(map(str, known)) != sorted(expected):
            raise BundleError(f"metadata: found the channels {found}, expected {expected} in any order.")
    return [channels.index(name) for name in CHANNELS], [regions.index(name) for name in names]


def _read_schema(configs: Mapping[str, Mapping[str, Any]], outputs: Sequence[int]) -> str:
    """Find the convention of its labels: in the metadata, or in the step that writes them.

    The step is a program, read as text: `torch.where(x[[2]] > 0, 4, ...)` gives 4 to the third channel.
    """
    described = str(configs["metadata"].get("label_classes")).rpartition("integers: ")[2]
    for schema in SCHEMAS.values():
        if described == ", ".join(f"{value} {tissue}" for value, tissue in schema.tissues.items()):
            return schema.name
    texts = " ".join(list_texts(configs["inference"].get("postprocessing")))
    numbers = {int(channel): int(value) for channel, value in re.findall(r"x\[\[(\d)\]\] > 0, (\d+)", texts)}
    core, whole, enhancing = (numbers.get(place) for place in outputs)
    for schema in SCHEMAS.values():
        if (schema.necrotic, schema.edema, schema.enhancing) == (core, whole, enhancing):
            return schema.name
    raise BundleError(
        "found nowhere which integer stands for which tissue, expected a list in the metadata's label_classes such as "
        f"'integers: {', '.join(f'{v} {t}' for v, t in SCHEMAS['brats2023'].tissues.items())}'."
    )


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the state dictionary in models/model.pt; nothing but tensors is ever unpickled."""
    path = folder / "models" / "model.pt"
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("*"))
        hint = "model.ts is TorchScript, a program, and is not run here. " if "model.ts" in others else ""
        raise BundleError(f"found {others or 'nothing'} in models, expected model.pt, a state dictionary. {hint}")
    try:
        content = read_archive(path) if zipfile.is_zipfile(path) else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(
            f"models/model.pt: refused ({reason}). Expected tensors alone, in a file of torch.save."
        ) from None
    for key in ("model", "state_dict"):  # some handlers of MONAI save it inside another dictionary
        content = content.get(key, content)
    return dict(content)


def _permute(
    weights: dict[str, torch.Tensor], inputs: Sequence[int], outputs: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Bring the first layer to the order of `CHANNELS`, and the last to that of `REGIONS`."""
    first, last = "convInit.conv.weight", "conv_final.2.conv"
    permuted = {first: weights[first][:, list(inputs)]}
    permuted |= {f"{last}.{part}": weights[f"{last}.{part}"][list(outputs)] for part in ("weight", "bias")}
    return weights | permuted


def _introduce(folder: Path, metadata: Mapping[str, Any], mean_dice: float) -> str:
    """Say whose network it is, under which licence, and what it was trained on."""
    words = ["unknown"]
    for path in (folder / "docs" / "license.txt", folder / "LICENSE"):
        if path.is_file():
            words = path.read_text(encoding="utf-8").split()
    is_apache = words[:4] == ["Apache", "License", "Version", "2.0,"]
    licence = "Apache-2.0" if is_apache else " ".join(words[:6])
    score = "" if math.isnan(mean_dice) else f" Its authors' own validation: mean Dice {mean_dice:.3f}."
    return (
        f"{metadata.get('name', folder.name)} {metadata.get('version', '')} by {metadata.get('authors', 'unknown')}, licence "
        f"{licence}, trained on {metadata.get('data_source', 'unknown data')}.{score}"
    )
