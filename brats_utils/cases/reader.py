"""The one way in: opens a case, checks all that is known to go wrong, and puts image and label on one grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from nibabel.affines import from_matvec

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.checks import COSTS, find_background, find_tissue, find_warnings
from brats_utils.cases.geometry import find_box, reorient_to_grid
from brats_utils.cases.label import read_label
from brats_utils.cases.nifti import gives_position, read_volume
from brats_utils.labels import CHANNELS, LabelSchema, labels_to_regions
from brats_utils.paths import display_path

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
        affine = np.asarray(self.image.affine) @ from_matvec(np.eye(3), [part.start for part in self.brain])
        volumes = {"image": self.image.as_tensor()} | ({} if self.label is None else {"label": self.label[None]})
        return {key: MetaTensor(volume[:, *self.brain].contiguous(), affine=affine) for key, volume in volumes.items()}


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
    scans = [path for path in case.images if path]
    if len(case.images) not in (1, len(CHANNELS)):
        found = f" ({', '.join(path.name for path in scans)})" if scans else ""
        raise CaseError(
            f"{case.case_id}: found {len(scans)} files{found}, expected one 4D file or {len(CHANNELS)}: "
            f"{', '.join(CHANNELS)}. Check that their names give each once, or give the files one by one."
        )
    if len(case.missing) > incomplete:
        raise CaseError(
            f"{case.case_id}: found no {' and no '.join(case.missing)} among its files, expected {', '.join(CHANNELS)}. Check "
            "their names, or leave the patient out: predict and evaluate accept one missing sequence, training does not."
        )
    names = [channel for channel in CHANNELS if channel not in case.missing]
    sources: list[nib.Nifti1Image] = []
    volumes, notes, backgrounds = [], [], list[float | None]()
    for path in scans:
        source, channels = _read_channels(path, expected=len(CHANNELS) // len(case.images))
        if not gives_position(source):
            notes.append(f"{display_path(path)}: the header gives no orientation; left and right may be swapped.")
        remaining = names[len(backgrounds) :]
        backgrounds += [
            _zero_background(channel, name, path) for channel, name in zip(channels, remaining, strict=False)
        ]
        sources.append(source)
        volumes.append(MetaTensor(torch.from_numpy(channels), affine=source.affine))
    if any(backgrounds):
        listed = ", ".join(f"{name} {value:g}" for name, value in zip(names, backgrounds, strict=True) if value)
        notes.append(
            f"Found a constant background that is not 0 ({listed}), as after a z-score of the whole volume. It is set to 0."
        )
    image = _stack(volumes, sources, scans, resample=resample)
    tissue = find_tissue(image)
    brain = find_box(tissue)
    inside = image.as_tensor().numpy()[:, *brain]
    _refuse_copies(inside, names, scans[0])
    notes += find_warnings(inside, names, spacing_mm=image.pixdim.tolist())
    for missing in case.missing:
        notes.append(f"{missing} is missing. {COSTS[missing]}")
        image = MetaTensor(np.insert(image.numpy(), CHANNELS.index(missing), 0, axis=0), affine=image.affine)
    label = None
    if case.label:
        label, label_notes = read_label(case, sources[0])
        notes += label_notes
        outside = int(torch.count_nonzero(label * ~tissue)) / max(int(torch.count_nonzero(label)), 1)
        if outside > MAX_OUTSIDE:
            notes.append(
                f"{100 * outside:.0f}% of the label lie in the background, expected all of it in the brain. Does it belong to this scan?"
            )
    return Scan(image, brain, scans[0], tuple(dict.fromkeys(notes)), label, case.label_schema, (*case.missing, None)[0])


def _read_channels(path: Path, *, expected: int) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Read the scans of a file, (C, X, Y, Z) float32."""
    source, values = read_volume(path)
    remedy = f"Give one 4D file with {len(CHANNELS)} channels ({', '.join(CHANNELS)}), or one 3D file for each."
    if values.ndim not in (3, 4) or not values.size:
        raise CaseError(
            f"{display_path(path)}: found {values.ndim} axes in shape {values.shape}, expected 3, or 4 with the "
            f"channels last, and none of length 0. {remedy}"
        )
    channels = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    if len(channels) != expected:
        raise CaseError(
            f"{display_path(path)}: found {len(channels)} channels in shape {values.shape}, expected {expected}. {remedy}"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return source, channels.astype(np.float32)


def _stack(
    volumes: list[MetaTensor], sources: Sequence[nib.Nifti1Image], paths: Sequence[Path], *, resample: bool
) -> MetaTensor:
    """Put the channels on one grid, that of the first: (4, X, Y, Z)."""
    first, moved = volumes[0], []
    if len(volumes) == 1:
        return first
    for volume, source, path in zip(volumes, sources, paths, strict=True):
        turned, fits = reorient_to_grid(volume, source.affine, onto=sources[0].affine, shape=first.shape[1:])
        known = gives_position(source) and gives_position(sources[0])
        if not fits and not resample:
            raise CaseError(
                f"{display_path(path)}: found a grid of {tuple(volume.shape[1:])} with another position or size than "
                f"{display_path(paths[0])} ({tuple(first.shape[1:])}). Resample all scans to one grid first, or let "
                "`predict --resample` do it; either way the scans must lie on each other."
            )
        if not fits and (known or volume.shape != first.shape):
            turned = torch.Tensor(ResampleToMatch(padding_mode="zeros")(volume, img_dst=first))
            turned[turned.abs() <= 1e-5 * turned.abs().max()] = 0  # what interpolation leaves in the background
        elif not fits:
            turned = volume  # voxel by voxel: without a position nothing says where else
        if not turned.any():
            raise CaseError(
                f"{display_path(path)}: found nothing but zeros on the grid of {display_path(paths[0])}, expected scans "
                "that overlap. Check that both belong to one patient, or register them first."
            )
        moved.append(turned.as_subclass(torch.Tensor))
    return MetaTensor(torch.cat(moved), affine=first.affine)


def _zero_background(channel: np.ndarray, name: str, path: Path) -> float | None:
    """Refuse (X, Y, Z) float32 without numbers or content; set a constant background to 0 in place, and give what it was."""
    low, high = channel.min(), channel.max()  # both are NaN where one voxel is
    if not np.isfinite([low, high]).all():
        raise CaseError(
            f"{display_path(path)}: {name}: found NaN or infinite voxels (in single precision), expected numbers. "
            "Export it again or set them to 0."
        )
    if low == high:
        raise CaseError(
            f"{display_path(path)}: {name} holds one value everywhere ({low:g}). Check that the scan is there."
        )
    inside = channel[find_box(torch.from_numpy(channel != 0))]  # what a tool has padded is 0 already
    constant = find_background(inside)
    if constant is not None:
        inside -= constant
        inside[np.abs(inside) <= 1e-5 * (high - low)] = 0
    return constant


def _refuse_copies(values: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Refuse one scan given twice: (C, x, y, z) float32, cut to the brain."""
    for (one, scan), (other, copy) in combinations(zip(names, values, strict=True), 2):
        if np.array_equal(scan, copy):
            raise CaseError(
                f"{display_path(path)}: found the same voxels in {one} and {other}, expected two scans. Check the file names."
            )
