"""Label schemas and the three tumour regions: the only place that knows which integer means what.

Three numberings of the same tissue are in use. Mixing them up swaps the enhancing tumour with
the edema or the necrotic core, and a model then reports excellent numbers for the wrong thing.

| schema     | 1       | 2       | 3         | 4         | source                                          |
|------------|---------|---------|-----------|-----------|-------------------------------------------------|
| MSD        | edema   | NCR/NET | enhancing | -         | Task01_BrainTumour/dataset.json                 |
| BRATS_2021 | NCR/NET | edema   | -         | enhancing | Baid 2021, arXiv 2107.02314 (and all before it) |
| BRATS_2023 | NCR/NET | edema   | enhancing | -         | BraTS 2023 challenge, synapse.org/brats2023     |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
"""Channel order of Task01_BrainTumour. Source: `modality` in its dataset.json."""


class LabelError(ValueError):
    """Labels, channels or a dataset.json that contradict the schema, or a label that does not lie on its scan."""


@dataclass(frozen=True)
class Region:
    """One of the overlapping targets that BraTS scores.

    Attributes:
        name: short name used in code and reports.
        title: name of the overlay in tables, as W&B users know it.
        metric: suffix of the metric `validation/mean_dice_<metric>`.
        color: hex colour of this region in every figure (Okabe-Ito, colour-blind safe).
    """

    name: str
    title: str
    metric: str
    color: str


TC = Region("TC", "Tumor-Core", "tumor_core", "#F0E442")
WT = Region("WT", "Whole-Tumor", "whole_tumor", "#56B4E9")
ET = Region("ET", "Enhancing-Tumor", "enhanced_tumor", "#D55E00")
REGIONS = (TC, WT, ET)
"""Order of the model's output channels."""


@dataclass(frozen=True)
class LabelSchema:
    """Which integer stands for which tissue in a label file.

    Attributes:
        name: value of the setting `label_schema`.
        edema: peritumoural edema (ED).
        necrotic: necrotic and non-enhancing tumour core (NCR/NET).
        enhancing: gadolinium-enhancing tumour (ET).
    """

    name: str
    edema: int
    necrotic: int
    enhancing: int

    @property
    def tissues(self) -> dict[int, str]:
        """Label value to tissue name, background included, in numeric order."""
        named = {0: "background", self.edema: "edema", self.necrotic: "necrotic / non-enhancing core"}
        return dict(sorted({**named, self.enhancing: "enhancing tumour"}.items()))

    @property
    def region_values(self) -> tuple[tuple[int, ...], ...]:
        """Label values that make up each region, in the order of `REGIONS`.

        Source: Menze 2015 (BraTS), doi 10.1109/TMI.2014.2377694: TC = NCR + ET, WT = TC + edema.
        """
        return (
            (self.necrotic, self.enhancing),
            (self.edema, self.necrotic, self.enhancing),
            (self.enhancing,),
        )


MSD = LabelSchema("msd", edema=1, necrotic=2, enhancing=3)
BRATS_2021 = LabelSchema("brats2021", edema=2, necrotic=1, enhancing=4)
BRATS_2023 = LabelSchema("brats2023", edema=2, necrotic=1, enhancing=3)
SCHEMAS = {schema.name: schema for schema in (MSD, BRATS_2021, BRATS_2023)}


def check_label_values(values: Iterable[float], schema: LabelSchema, *, source: str) -> None:
    """Refuse label values that the schema does not list.

    Args:
        values: the distinct values found in a label volume.
        schema: the numbering the volume is said to follow.
        source: what to call the volume in the error, e.g. its file name.

    Raises:
        LabelError: if a value is not in the schema.
    """
    unlisted = sorted(set(values) - set(schema.tissues))
    if unlisted:
        shown = ", ".join(f"{value:g}" for value in unlisted[:5]) + (", ..." if len(unlisted) > 5 else "")
        fits = [s.name for s in SCHEMAS.values() if set(values) <= set(s.tissues)]
        hint = (
            f"The values fit {' or '.join(fits)}: set label_schema to it, or --schema at the command line."
            if fits
            else "No known schema has them all."
        )
        raise LabelError(
            f"{source}: found label values [{shown}], expected only {sorted(schema.tissues)} (schema {schema.name!r}). {hint}"
        )


def labels_to_regions(labels: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn integer labels into the three overlapping regions.

    Args:
        labels: (X, Y, Z) or (1, X, Y, Z), any integer or float dtype, values of the schema.
        schema: the numbering of `labels`.

    Returns:
        (3, X, Y, Z) bool, channels in the order of `REGIONS`.
    """
    volume = labels[0] if labels.ndim == 4 else labels
    regions = []
    for values in schema.region_values:
        mask = volume == values[0]
        for value in values[1:]:
            mask = mask | (volume == value)
        regions.append(mask)
    return torch.stack(regions)


def regions_to_labels(regions: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn three regions back into one integer label a voxel; the result is nested by construction.

    Written from the outside in, WT then TC then ET, so that a voxel called ET but not WT still
    counts as tumour. Source: region-based training in nnU-Net (Isensee 2021, arXiv 2011.00848).

    Args:
        regions: (3, X, Y, Z) bool, channels in the order of `REGIONS`.
        schema: the numbering wanted.

    Returns:
        (X, Y, Z) uint8.
    """
    core, whole, enhancing = regions.bool()
    labels = torch.zeros(whole.shape, dtype=torch.uint8, device=regions.device)
    labels[whole] = schema.edema
    labels[core] = schema.necrotic
    labels[enhancing] = schema.enhancing
    return labels


def check_dataset_json(document: Mapping[str, object], schema: LabelSchema, *, source: str) -> None:
    """Refuse a dataset.json whose channels or label names contradict the schema.

    Args:
        document: the parsed dataset.json.
        schema: the numbering that the rest of the pipeline will use.
        source: what to call the file in the error.

    Raises:
        LabelError: if channel order, label values or label names differ from what is expected.
    """
    channels = _numbered_names(document, "modality", source)
    found = tuple(channels[i] for i in sorted(channels))
    if tuple(name.lower() for name in found) != tuple(name.lower() for name in CHANNELS):
        raise LabelError(
            f"{source}: found channels {list(found)}, expected {list(CHANNELS)} in this order. "
            "Reorder the channels of the images, then correct `modality`."
        )
    names = _numbered_names(document, "labels", source)
    tissues = {value: _tissue_of(name) for value, name in names.items() if value != 0}
    expected = {schema.edema: "edema", schema.necrotic: "necrotic", schema.enhancing: "enhancing"}
    if tissues != expected:
        fits = [
            s.name
            for s in SCHEMAS.values()
            if tissues == {s.edema: "edema", s.necrotic: "necrotic", s.enhancing: "enhancing"}
        ]
        hint = (
            f"It describes {' or '.join(fits)}: set label_schema to it, or --schema at the command line."
            if fits
            else "It describes no known schema."
        )
        raise LabelError(f"{source}: found labels {names}, expected {schema.tissues} (schema {schema.name!r}). {hint}")


def _numbered_names(document: Mapping[str, object], key: str, source: str) -> dict[int, str]:
    """Read `{"0": "name", ...}` under `key`."""
    entry = document.get(key)
    try:
        assert isinstance(entry, Mapping)
        return {int(number): str(name) for number, name in entry.items()}
    except (AssertionError, ValueError):
        raise LabelError(
            f'{source}: found {entry!r} under {key!r}, expected a mapping such as {{"0": "name"}}.'
        ) from None


def _tissue_of(name: str) -> str:
    """Classify the free text of dataset.json, e.g. `non-enhancing tumor`, as a tissue."""
    text = name.lower()
    if "edema" in text or "oedema" in text:
        return "edema"
    if "non-enhanc" in text or "necro" in text or "ncr" in text:
        return "necrotic"
    return "enhancing" if "enhanc" in text else f"unknown ({name})"
