"""The one way in: reads a case, checks all that is known to go wrong, and puts image and label on one grid."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.checks import COSTS, find_tissue, find_warnings
from brats_utils.cases.geometry import find_box
from brats_utils.cases.image import read_image, refuse_copies
from brats_utils.cases.label import read_label
from brats_utils.labels import CHANNELS, LabelSchema, labels_to_regions

MAX_OUTSIDE = 0.05  # share of a label in the background that is not warned of: skull stripping may cut off a little


@dataclass(frozen=True)
class Scan:
    """One case, read and checked."""

    image: MetaTensor  # (4, X, Y, Z) float32 on the files' own grid, channels in the order of `CHANNELS`, 0 in the background
    brain: tuple[slice, ...]  # bounding box of the foreground, in voxels
    reference: Path  # the file whose grid that is
    warnings: tuple[str, ...]  # what looks wrong but does not forbid to use it, one sentence each
    label: torch.Tensor | None = None  # (X, Y, Z) uint8 on the same grid; None without
    label_schema: LabelSchema | None = None  # of the label
    missing: str | None = None  # the channel that is not there and 0 everywhere

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Size of a voxel along each axis of the files' grid."""
        return tuple(float(size) for size in self.image.pixdim)

    @property
    def regions(self) -> torch.Tensor:
        """The label as (3, X, Y, Z) bool, channels in the order of `REGIONS`."""
        assert self.label is not None
        assert self.label_schema is not None
        return labels_to_regions(self.label, self.label_schema)

    @property
    def tensors(self) -> dict[str, MetaTensor]:
        """What MONAI's dictionary transforms take: `image` and, where there is one, `label` (1, x, y, z), cut to the brain."""
        corner = from_matvec(np.eye(3), [part.start for part in self.brain])
        affine = np.asarray(self.image.affine) @ corner
        volumes = {"image": self.image.as_tensor()}
        if self.label is not None:
            volumes["label"] = self.label[None]
        cropped = {key: volume[:, *self.brain].contiguous() for key, volume in volumes.items()}
        return {key: MetaTensor(volume, affine=affine) for key, volume in cropped.items()}


def read_case(case: Case, *, resample: bool = False, incomplete: bool = False) -> Scan:
    """Read a case and check it: for training, evaluation and prediction alike.

    A constant background that is not 0 becomes 0. A label with other axes is reoriented to the scan's; one whose header
    gives no position is taken voxel by voxel. Both are among the warnings.

    Args:
        case: its files; with a label it needs a label schema.
        resample: bring scans on different grids to that of the first, instead of refusing them.
        incomplete: take a case without one of its channels, which is then 0 everywhere, and say so among the warnings.

    Raises:
        CaseError: a missing or damaged file; too many or too few axes or channels; voxels that are no finite numbers; an
            empty channel; one scan given twice; different grids without `resample`, or ones that do not overlap.
        LabelError: a value that is no whole number or not in the label schema, or a label on another grid than the scan.
    """
    _refuse_files(case, incomplete=incomplete)
    image, source, warnings = read_image(case, resample=resample)
    tissue = find_tissue(image)
    brain = find_box(tissue)
    inside = image.as_tensor().numpy()[:, *brain]
    refuse_copies(inside, case)
    warnings += find_warnings(inside, case.channels, spacing_mm=image.pixdim.tolist())
    for channel in case.missing:
        warnings.append(f"{channel} is missing. {COSTS[channel]}")
        image = _insert_zeros(image, channel)
    label = None
    if case.label:
        label, label_warnings = read_label(case, source)
        warnings += label_warnings
        warnings += _find_outside(label, tissue)
    return Scan(
        image=image,
        brain=brain,
        reference=case.files[0],
        warnings=tuple(dict.fromkeys(warnings)),
        label=label,
        label_schema=case.label_schema,
        missing=case.missing[0] if case.missing else None,
    )


def _refuse_files(case: Case, *, incomplete: bool) -> None:
    """Refuse a case with too many files or too few; `incomplete` as in `read_case`."""
    scans = [path for path in case.images if path]
    if len(case.images) not in (1, len(CHANNELS)):
        names = f" ({', '.join(path.name for path in scans)})" if scans else ""
        raise CaseError(
            f"{case.case_id}: found {len(scans)} files{names}, expected one 4D file or {len(CHANNELS)}: "
            f"{', '.join(CHANNELS)}. Check that their names give each once, or give the files one by one."
        )
    allowed = 1 if incomplete else 0
    if len(case.missing) > allowed:
        raise CaseError(
            f"{case.case_id}: found no {' and no '.join(case.missing)} among its files, expected {', '.join(CHANNELS)}. Check "
            "their names, or leave the patient out: predict and evaluate accept one missing sequence, training does not."
        )


def _insert_zeros(image: MetaTensor, channel: str) -> MetaTensor:
    """Put zeros where a missing channel belongs: (3, X, Y, Z) to (4, X, Y, Z)."""
    complete = np.insert(image.numpy(), CHANNELS.index(channel), 0, axis=0)
    return MetaTensor(complete, affine=image.affine)


def _find_outside(label: torch.Tensor, tissue: torch.Tensor) -> list[str]:
    """Warn of a label, (X, Y, Z) integers, much of which is not in the brain, (X, Y, Z) bool."""
    labelled = int(torch.count_nonzero(label))
    in_background = int(torch.count_nonzero(label * ~tissue))
    share = in_background / max(labelled, 1)
    if share <= MAX_OUTSIDE:
        return []
    return [
        f"{100 * share:.0f}% of the label lie in the background, expected all of it in the brain. Does it belong to this "
        "scan?"
    ]
