"""The image of a case: its channels, one by one or in one 4D file, on the grid of the first."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.checks import find_background
from brats_utils.cases.geometry import find_box, reorient_to_grid
from brats_utils.cases.nifti import gives_position, read_volume
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

SMALLEST = 1e-5
"""Values below this share of the largest are taken for 0: rounding and interpolation leave such in the background."""


@dataclass(frozen=True)
class _File:
    """What one file of a case holds."""

    path: Path
    source: nib.Nifti1Image  # for its header
    volume: MetaTensor  # (1, X, Y, Z) or (4, X, Y, Z) float32


def read_image(case: Case, *, resample: bool) -> tuple[MetaTensor, nib.Nifti1Image, list[str]]:
    """Read the channels of a case onto the grid of its first file; `resample` as in `reader.read_case`.

    Returns:
        (C, X, Y, Z) float32 of the channels that are there, the first file, whose grid that is, and what to warn of.

    Raises:
        CaseError: see `reader.read_case`.
    """
    expected = len(CHANNELS) // len(case.images)  # in each file
    files: list[_File] = []
    warnings: list[str] = []
    backgrounds: dict[str, float] = {}
    unread = list(case.channels)
    for path in case.images:
        if path is None:
            continue
        source, channels = _read_channels(path, expected=expected)
        if not gives_position(source):
            warnings.append(f"{display_path(path)}: the header gives no orientation; left and right may be swapped.")
        for channel in channels:
            name = unread.pop(0)
            background = _zero_background(channel, name, path)
            if background is not None:
                backgrounds[name] = background
        files.append(_File(path, source, MetaTensor(torch.from_numpy(channels), affine=source.affine)))
    if backgrounds:
        listed = ", ".join(f"{name} {value:g}" for name, value in backgrounds.items())
        warnings.append(
            f"Found a constant background that is not 0 ({listed}), as after a z-score of the whole volume. It is set to 0."
        )
    first = files[0]
    if len(files) == 1:  # a copy would take as much memory again
        return first.volume, first.source, warnings
    on_grid = [_bring_to_grid(file, first, resample=resample) for file in files]
    image = MetaTensor(torch.cat(on_grid), affine=first.volume.affine)
    return image, first.source, warnings


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


def _bring_to_grid(file: _File, first: _File, *, resample: bool) -> torch.Tensor:
    """Bring the channels of a file, (C, x, y, z), to the grid of the first, (C, X, Y, Z); without `resample` refuse others."""
    if file is first:
        return first.volume.as_tensor()
    shape = first.volume.shape[1:]
    reoriented, fits = reorient_to_grid(file.volume, file.source.affine, onto=first.source.affine, shape=shape)
    if not fits and not resample:
        raise CaseError(
            f"{display_path(file.path)}: found a grid of {tuple(file.volume.shape[1:])} with another position or size than "
            f"{display_path(first.path)} ({tuple(shape)}). Resample all scans to one grid first, or let "
            "`predict --resample` do it; either way the scans must be co-registered."
        )
    has_position = gives_position(file.source) and gives_position(first.source)
    if fits:
        moved = reoriented
    elif has_position or file.volume.shape != first.volume.shape:
        moved = torch.Tensor(ResampleToMatch(padding_mode="zeros")(file.volume, img_dst=first.volume))
        moved[moved.abs() <= SMALLEST * moved.abs().max()] = 0  # what interpolation leaves in the background
    else:
        moved = file.volume  # voxel by voxel: without a position nothing says where else
    if not moved.any():
        raise CaseError(
            f"{display_path(file.path)}: found nothing but zeros on the grid of {display_path(first.path)}, expected scans "
            "that overlap. Check that both belong to one patient, or register them first."
        )
    return moved.as_subclass(torch.Tensor)


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
        inside[np.abs(inside) <= SMALLEST * (high - low)] = 0
    return constant


def refuse_copies(values: np.ndarray, case: Case) -> None:
    """Refuse one scan given twice: (C, x, y, z) float32, cut to the brain."""
    scans = zip(case.channels, values, strict=True)
    for (one, scan), (other, copy) in combinations(scans, 2):
        if np.array_equal(scan, copy):
            raise CaseError(
                f"{display_path(case.files[0])}: found the same voxels in {one} and {other}, expected two scans. Check the "
                "file names."
            )
