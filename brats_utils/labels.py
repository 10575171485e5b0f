"""Label schemas and the three tumour regions: the only place that knows which integer means what.

Five numberings of the same tissues are in use. Mixing them up swaps the enhancing tumour with
the edema or the necrotic core, and a model then reports excellent numbers for the wrong thing.

| schema     | 1         | 2       | 3         | 4         | source                                          |
|------------|-----------|---------|-----------|-----------|-------------------------------------------------|
| msd        | edema     | NCR/NET | enhancing | -         | Task01_BrainTumour/dataset.json                 |
| brats2021  | NCR/NET   | edema   | -         | enhancing | Baid 2021, arXiv 2107.02314 (and all before it) |
| brats2023  | NCR/NET   | edema   | enhancing | -         | BraTS 2023 challenge, synapse.org/brats2023     |
| brats2024  | NCR/NET   | edema   | enhancing | cavity    | de Verdier 2024, arXiv 2405.18368, after surgery |
| brats_peds | enhancing | NCR/NET | cyst      | edema     | Kazerooni 2024, arXiv 2404.15009, children      |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch

CHANNELS = ("FLAIR", "T1w", "T1gd", "T2w")
"""Channel order of Task01_BrainTumour. Source: `modality` in its dataset.json."""

FILE_NAMES = dict(zip(CHANNELS, ("flair", "t1", "t1gd", "t2"), strict=True))
"""What the channels are called in options of the command line, and in files that are written."""


class LabelError(ValueError):
    """Labels, channels or a dataset.json that contradict the schema, or a label that does not lie on its scan."""


@dataclass(frozen=True)
class Region:
    """One of the overlapping targets that BraTS scores."""

    name: str  # short name used in code and reports
    title: str  # name of the overlay in tables, as W&B users know it
    metric: str  # suffix of the metric `validation/mean_dice_<metric>`
    color: str  # hex colour of this region in every figure (Okabe-Ito, colour-blind safe)


TC = Region("TC", "Tumor-Core", "tumor_core", "#F0E442")
WT = Region("WT", "Whole-Tumor", "whole_tumor", "#56B4E9")
ET = Region("ET", "Enhancing-Tumor", "enhanced_tumor", "#D55E00")
REGIONS = (TC, WT, ET)
"""Order of the model's output channels."""


@dataclass(frozen=True)
class LabelSchema:
    """Which integer stands for which tissue in a label file."""

    name: str  # value of the setting `label_schema`
    edema: int  # peritumoural edema (ED)
    necrotic: int  # necrotic and non-enhancing tumour core (NCR/NET)
    enhancing: int  # gadolinium-enhancing tumour (ET)
    cyst: int | None = None  # cystic part of the core, where it is told apart
    cavity: int | None = None  # what surgery left, filled with fluid: no tumour

    @property
    def tissues(self) -> dict[int, str]:
        """Label value to tissue name, background included, in numeric order."""
        named = {
            0: "background",
            self.edema: "edema",
            self.necrotic: "necrotic / non-enhancing core",
            self.enhancing: "enhancing tumour",
            self.cyst: "cyst",
            self.cavity: "resection cavity",
        }
        return {value: named[value] for value in sorted(value for value in named if value is not None)}

    @property
    def region_values(self) -> tuple[tuple[int, ...], ...]:
        """Label values that make up each region, in the order of `REGIONS`.

        Source: Menze 2015 (BraTS), doi 10.1109/TMI.2014.2377694: TC = NCR + ET, WT = TC + edema. The cyst belongs to
        the core: Kazerooni 2024, arXiv 2404.15009. The cavity is no tumour: de Verdier 2024, arXiv 2405.18368.
        """
        core = (self.necrotic, self.enhancing, *(() if self.cyst is None else (self.cyst,)))
        return core, (self.edema, *core), (self.enhancing,)


MSD = LabelSchema("msd", edema=1, necrotic=2, enhancing=3)
BRATS_2021 = LabelSchema("brats2021", edema=2, necrotic=1, enhancing=4)
BRATS_2023 = LabelSchema("brats2023", edema=2, necrotic=1, enhancing=3)
BRATS_2024 = LabelSchema("brats2024", edema=2, necrotic=1, enhancing=3, cavity=4)
BRATS_PEDS = LabelSchema("brats_peds", edema=4, necrotic=2, enhancing=1, cyst=3)
SCHEMAS = {schema.name: schema for schema in (MSD, BRATS_2021, BRATS_2023, BRATS_2024, BRATS_PEDS)}


def check_label_values(values: Iterable[float], schema: LabelSchema, *, source: str) -> None:
    """Refuse label values that the schema does not list, with a `LabelError` that calls their volume `source`."""
    unlisted = sorted(set(values) - set(schema.tissues))
    if not unlisted:
        return
    shown = ", ".join(f"{value:g}" for value in unlisted[:5]) + (", ..." if len(unlisted) > 5 else "")
    hints = []
    for value in unlisted[:5]:
        meanings: dict[str, list[str]] = {}
        for known in SCHEMAS.values():
            if value in known.tissues:
                meanings.setdefault(known.tissues[int(value)], []).append(known.name)
        listed = ", ".join(f"{tissue} in {' and '.join(names)}" for tissue, names in meanings.items())
        hints.append(f"{value:g} is {listed}." if listed else f"No known schema has {value:g}.")
    if not all(hint.startswith("No") for hint in hints):
        hints.append("Find out which of them these labels follow, and set label_schema to it, or --schema.")
    raise LabelError(
        f"{source}: found label values [{shown}], expected only {sorted(schema.tissues)} (schema {schema.name!r}). "
        + " ".join(hints)
    )


def labels_to_regions(labels: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn integer labels into the three overlapping regions.

    `labels` is (X, Y, Z) or (1, X, Y, Z), of any integer or float dtype, with values of the schema. Gives (3, X, Y, Z)
    bool, channels in the order of `REGIONS`. MONAI's `ConvertToMultiChannelBasedOnBratsClassesd` does not serve: it is
    written for other numberings than MSD's, with either value of its `et_label` (Project-MONAI/tutorials, issue 1355).
    """
    volume = labels[0] if labels.ndim == 4 else labels
    masks = ([volume == value for value in values] for values in schema.region_values)
    return torch.stack([reduce(torch.logical_or, parts) for parts in masks])


def regions_to_labels(regions: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn three regions back into one integer label a voxel; the result is nested by construction.

    Written from the outside in, WT then TC then ET, as in the region-based training of nnU-Net (Isensee 2021, arXiv
    2011.00848): a voxel called ET but not WT still counts as tumour.

    `regions` is (3, X, Y, Z) bool, channels in the order of `REGIONS`. Gives (X, Y, Z) uint8 in the numbering of the
    schema; its cyst and cavity are not written, for no region tells them apart.
    """
    core, whole, enhancing = regions.bool()
    labels = torch.zeros(whole.shape, dtype=torch.uint8, device=regions.device)
    labels[whole] = schema.edema
    labels[core] = schema.necrotic
    labels[enhancing] = schema.enhancing
    return labels
