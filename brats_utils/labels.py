"""Label schemas and the three tumour regions: the only place that knows which integer means what.

Seven conventions for the same tissues are in use. Mixing them up swaps the enhancing tumour with
the edema or the necrotic core, and a model then reports excellent numbers for the wrong thing.

| schema       | 1         | 2       | 3         | 4         | source                                            |
|--------------|-----------|---------|-----------|-----------|---------------------------------------------------|
| msd          | edema     | NCR/NET | enhancing | -         | Task01_BrainTumour/dataset.json                   |
| brats2015    | NCR       | edema   | NET       | enhancing | Menze 2015, doi 10.1109/TMI.2014.2377694, to 2016 |
| brats2021    | NCR/NET   | edema   | -         | enhancing | Baid 2021, arXiv 2107.02314 (and 2017 to 2020)    |
| brats2023    | NCR/NET   | edema   | enhancing | -         | BraTS 2023 challenge, synapse.org/brats2023       |
| brats2024    | NCR/NET   | edema   | enhancing | cavity    | de Verdier 2024, arXiv 2405.18368, after surgery  |
| brats_peds   | enhancing | NCR/NET | cyst      | edema     | Kazerooni 2024, arXiv 2404.15009, children        |
| deepbratumia | enhancing | NCR/NET | edema     | -         | measured_volumes_in_mm3.json of LUMIERE           |

An eighth, whole_tumour, has 1 for all of them: such labels can be scored for WT, and not trained on.
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
    solid: int | None = None  # core that neither enhances nor is necrotic (NET), where it is told apart

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
            self.solid: "non-enhancing core",
        }
        if not all(self.known):
            named = {0: "background", self.edema: "whole tumour"}
        values = [value for value in named if value is not None]
        return {value: named[value] for value in sorted(values)}

    @property
    def known(self) -> tuple[bool, ...]:
        """Whether each region, in the order of `REGIONS`, can be told from the label: WT alone where one value is all."""
        apart = self.enhancing != self.edema
        return apart, True, apart

    @property
    def region_values(self) -> tuple[tuple[int, ...], ...]:
        """Label values that make up each region, in the order of `REGIONS`.

        Source: Menze 2015 (BraTS), doi 10.1109/TMI.2014.2377694: TC = NCR + ET, WT = TC + edema. The cyst belongs to
        the core: Kazerooni 2024, arXiv 2404.15009. The cavity is no tumour: de Verdier 2024, arXiv 2405.18368. None make
        up a region that is not known.
        """
        if not all(self.known):
            return (), (self.edema,), ()
        core = (self.necrotic, self.enhancing, *(value for value in (self.cyst, self.solid) if value is not None))
        return core, (self.edema, *core), (self.enhancing,)


MSD = LabelSchema("msd", edema=1, necrotic=2, enhancing=3)
BRATS_2021 = LabelSchema("brats2021", edema=2, necrotic=1, enhancing=4)
BRATS_2023 = LabelSchema("brats2023", edema=2, necrotic=1, enhancing=3)
BRATS_2024 = LabelSchema("brats2024", edema=2, necrotic=1, enhancing=3, cavity=4)
BRATS_PEDS = LabelSchema("brats_peds", edema=4, necrotic=2, enhancing=1, cyst=3)
BRATS_2015 = LabelSchema("brats2015", edema=2, necrotic=1, enhancing=4, solid=3)
DEEPBRATUMIA = LabelSchema("deepbratumia", edema=3, necrotic=2, enhancing=1)
COMMON = (MSD, BRATS_2021, BRATS_2023, BRATS_2024, BRATS_PEDS)
RARE = (BRATS_2015, DEEPBRATUMIA)
SCHEMAS = {schema.name: schema for schema in (*COMMON, *RARE)}
WHOLE_TUMOUR = LabelSchema("whole_tumour", edema=1, necrotic=1, enhancing=1)
"""One outline without parts, as in the Erasmus Glioma Database. Source: van der Voort 2021, doi 10.1016/j.dib.2021.107191."""

SCORED = SCHEMAS | {WHOLE_TUMOUR.name: WHOLE_TUMOUR}
"""What can be scored; what can be trained on are the `SCHEMAS`, which tell the three regions."""


def refuse_unknown_regions(schema: LabelSchema, *, what: str) -> None:
    """Refuse labels that do not tell the three regions apart, with a `LabelError`, for `what` needs them: `Training`."""
    if not all(schema.known):
        raise LabelError(
            f"{schema.name}: found labels that outline the whole tumour alone, expected core and enhancing tumour too. "
            f"{what} needs all three regions; `evaluate --schema {schema.name}` scores WT."
        )


def check_label_values(values: Iterable[float], schema: LabelSchema, *, source: str) -> None:
    """Refuse label values that the schema does not list, with a `LabelError` that calls their volume `source`."""
    unlisted = sorted(set(values) - set(schema.tissues))
    if not unlisted:
        return
    shown = ", ".join(f"{value:g}" for value in unlisted[:5]) + (", ..." if len(unlisted) > 5 else "")
    hints = []
    for value in unlisted[:5]:
        common = _list_meanings(value, COMMON)
        rare = _list_meanings(value, RARE)
        if common and rare:
            hints.append(f"{value:g} is {common}. Also: {rare}.")
        elif common or rare:
            hints.append(f"{value:g} is {common or rare}.")
        else:
            hints.append(f"No known schema has {value:g}.")
    if not all(hint.startswith("No") for hint in hints):
        hints.append("Find out which of them these labels follow, and set label_schema to it, or --schema.")
    raise LabelError(
        f"{source}: found label values [{shown}], expected only {sorted(schema.tissues)} (schema {schema.name!r}). "
        + " ".join(hints)
    )


def _list_meanings(value: float, schemas: Iterable[LabelSchema]) -> str:
    """List what a label value stands for: `edema in msd, cyst in brats_peds`."""
    meanings: dict[str, list[str]] = {}
    for schema in schemas:
        if value in schema.tissues:
            meanings.setdefault(schema.tissues[int(value)], []).append(schema.name)
    return ", ".join(f"{tissue} in {' and '.join(names)}" for tissue, names in meanings.items())


def labels_to_regions(labels: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn integer labels into the three overlapping regions.

    `labels` is (X, Y, Z) or (1, X, Y, Z), of any integer or float dtype, with values of the schema. Gives (3, X, Y, Z)
    bool, channels in the order of `REGIONS`; a region that is not known is empty. MONAI's
    `ConvertToMultiChannelBasedOnBratsClassesd` does not serve: it is written for other conventions than MSD's, with either
    value of its `et_label` (Project-MONAI/tutorials, issue 1355).
    """
    volume = labels[0] if labels.ndim == 4 else labels
    empty = torch.zeros_like(volume, dtype=torch.bool)
    regions = []
    for values in schema.region_values:
        parts = [volume == value for value in values]
        regions.append(reduce(torch.logical_or, parts, empty))
    return torch.stack(regions)


def regions_to_labels(regions: torch.Tensor, schema: LabelSchema) -> torch.Tensor:
    """Turn three regions back into one integer label a voxel; the result is nested by construction.

    Written from the outside in, WT then TC then ET, as in the region-based training of nnU-Net (Isensee 2021, arXiv
    2011.00848): a voxel called ET but not WT still counts as tumour.

    `regions` is (3, X, Y, Z) bool, channels in the order of `REGIONS`. Gives (X, Y, Z) uint8 in the convention of the
    schema; its cyst and cavity are not written, for no region tells them apart.
    """
    core, whole, enhancing = regions.bool()
    labels = torch.zeros(whole.shape, dtype=torch.uint8, device=regions.device)
    labels[whole] = schema.edema
    labels[core] = schema.necrotic
    labels[enhancing] = schema.enhancing
    return labels
