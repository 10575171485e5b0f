"""A patient's scans: read, and checked before a network sees them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch

from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

ScanFiles = Path | Sequence[Path]
"""One 4D NIfTI, or four 3D ones in the order of `CHANNELS`."""

BRAIN_ML = (700, 2300)
"""Plausible volume of what is not air. Source: brains of 1246 to 1728 mL in 16 scans of BraTS, with room for crops."""

MAX_SPACING_MM = 4.0
"""Coarser voxels get a warning."""

MAX_SHIFT_VOXELS = 0.1
"""A volume this near to a grid lies on it: headers of different programs differ by rounding."""


def list_files(files: ScanFiles) -> list[Path]:
    """Name the files of a patient, one or four; the first is the one whose grid counts."""
    return [files] if isinstance(files, Path) else list(files)


class ScanError(ValueError):
    """Scans that cannot be predicted on, with what was found and what to do."""


@dataclass(frozen=True)
class Scan:
    """One patient's scans, read and checked.

    Attributes:
        image: (4, X, Y, Z) float32 MetaTensor on the files' own grid, channels in the order of `CHANNELS`.
        reference: the file whose grid that is.
        warnings: what looks wrong but does not forbid a prediction, one sentence each.
    """

    image: MetaTensor
    reference: Path
    warnings: tuple[str, ...]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Size of a voxel along each axis of the files' grid."""
        return tuple(float(size) for size in self.image.pixdim)


def read_scan(files: ScanFiles, *, resample: bool = False) -> Scan:
    """Read one patient's scans and check all that is known to go wrong.

    Args:
        files: one 4D NIfTI, or four 3D ones in the order of `CHANNELS`.
        resample: bring files on different grids to that of the first, instead of refusing them.

    Raises:
        ScanError: a file that is missing, damaged or no NIfTI; too many or too few axes or channels; voxels that are NaN,
            infinite or no numbers; an empty channel; one scan given twice; different grids without `resample`, or ones
            that do not overlap.
    """
    paths = list_files(files)
    if len(paths) not in (1, len(CHANNELS)):
        raise ScanError(f"Found {len(paths)} files, expected one 4D file or {len(CHANNELS)}: {', '.join(CHANNELS)}.")
    volumes: list[MetaTensor] = []
    notes: list[str] = []
    for path in paths:
        source, values = read_volume(path)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
            values = values.astype(np.float32)
        remedy = f"Give one 4D file with {len(CHANNELS)} channels ({', '.join(CHANNELS)}), or one 3D file for each."
        if values.ndim not in (3, 4) or not values.size:
            raise ScanError(
                f"{display_path(path)}: found {values.ndim} axes in shape {values.shape}, expected 3, or 4 with the "
                f"channels last, and none of length 0. {remedy}"
            )
        channels = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
        expected = len(CHANNELS) // len(paths)
        if len(channels) != expected:
            raise ScanError(
                f"{display_path(path)}: found {len(channels)} channels in shape {values.shape}, expected {expected}. {remedy}"
            )
        names = CHANNELS if len(paths) == 1 else [CHANNELS[paths.index(path)]]
        for name, channel in zip(names, channels, strict=True):
            _check_voxels(channel, f"{display_path(path)}: {name}")
            notes += _find_saturation(channel, name)
        if not (source.header["qform_code"] or source.header["sform_code"]):
            notes.append(f"{display_path(path)}: the header gives no orientation; left and right may be swapped.")
        volumes.append(MetaTensor(torch.from_numpy(channels), affine=source.affine))
    image = _stack(volumes, paths, resample=resample)
    return Scan(image, paths[0], tuple(dict.fromkeys([*notes, *_find_doubts(image)])))


def open_volume(path: Path) -> nib.Nifti1Image:
    """Read the header of a NIfTI file.

    Raises:
        ScanError: the file is missing, damaged or no NIfTI, or its header gives the voxels no place.
    """
    if not path.is_file():
        raise ScanError(f"{display_path(path)}: not found. Expected a NIfTI file; check the name and the folder.")
    with _explain_reading(path):
        source = nib.load(path)
    if not isinstance(source, nib.Nifti1Pair):
        raise ScanError(
            f"{display_path(path)}: found a {type(source).__name__}, expected a NIfTI file. Convert it, for instance with "
            "nib-convert."
        )
    if not np.isfinite(source.affine).all() or np.linalg.matrix_rank(source.affine[:3, :3]) < 3:
        raise ScanError(
            f"{display_path(path)}: found a header that gives the voxels no size or direction, expected an affine of "
            "finite numbers with three axes. Export it again, or correct the header."
        )
    return source


def read_volume(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Read a NIfTI file: its header, and its voxels as they are scaled, without trailing axes of length 1 after the third.

    Raises:
        ScanError: see `open_volume`; or voxels that are no numbers.
    """
    source = open_volume(path)
    with _explain_reading(path):
        values = np.asanyarray(source.dataobj)
    if values.dtype.kind not in "iuf":
        raise ScanError(
            f"{display_path(path)}: found voxels of type {values.dtype}, expected numbers. Export it as greyscale."
        )
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return source, values


def lies_on_grid(to_grid: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether the corners of a volume lie on those of a grid, give or take `MAX_SHIFT_VOXELS`.

    Args:
        to_grid: (4, 4), from the volume's voxels to the grid's.
        shape: (X, Y, Z) of both.
    """
    corners = np.array([(*corner, 1) for corner in product(*((0, size - 1) for size in shape))]).T
    return bool(np.abs(to_grid @ corners - corners).max() < MAX_SHIFT_VOXELS)


@contextmanager
def _explain_reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # nibabel, gzip and NumPy raise what they like, a damaged size MemoryError
        reason = str(error) or type(error).__name__
        raise ScanError(
            f"{display_path(path)}: cannot be read ({reason}). Expected a NIfTI file; copy or export it again."
        ) from None


def find_tissue(image: torch.Tensor) -> torch.Tensor:
    """Tell the brain from air, which is exactly 0 in every channel: (C, X, Y, Z) to (X, Y, Z) bool."""
    return torch.from_numpy(np.logical_or.reduce(image.numpy() != 0))  # many times faster than torch's any


def _check_voxels(channel: np.ndarray, name: str) -> None:
    if not np.isfinite(channel).all():
        raise ScanError(
            f"{name}: found NaN or infinite voxels (in single precision), expected numbers. Export it again or set them to 0."
        )
    if channel.min() == channel.max():
        raise ScanError(f"{name} holds one value everywhere ({channel.min():g}). Check that the scan is there.")


def _find_saturation(channel: np.ndarray, name: str) -> Iterator[str]:
    highest = channel.max() or channel[channel < 0].max()  # 0 is air
    share = np.count_nonzero(channel == highest) / np.count_nonzero(channel)
    if share > 0.001:
        yield (
            f"{name}: {100 * share:.1f}% of its voxels have the highest value, {highest:g}: cut off at the scanner or "
            "in a conversion. Bright tissue has lost its contrast."
        )


def _stack(volumes: list[MetaTensor], paths: list[Path], *, resample: bool) -> MetaTensor:
    """Put the channels on one grid: (4, X, Y, Z)."""
    first = volumes[0]
    for index, (volume, path) in enumerate(zip(volumes, paths, strict=True)):
        to_first = np.linalg.inv(np.asarray(first.affine)) @ np.asarray(volume.affine)
        if volume.shape == first.shape and lies_on_grid(to_first, first.shape[1:]):
            continue
        if not resample:
            raise ScanError(
                f"{display_path(path)}: found a grid of {tuple(volume.shape[1:])} with another position or size than "
                f"{display_path(paths[0])} ({tuple(first.shape[1:])}). Resample all scans to one grid first, or let "
                "`predict --resample` do it; either way the scans must lie on each other."
            )
        moved = torch.Tensor(ResampleToMatch(padding_mode="zeros")(volume, img_dst=first))
        if not moved.any():
            raise ScanError(
                f"{display_path(path)}: found nothing but zeros on the grid of {display_path(paths[0])}, expected scans "
                "that overlap. Check that both belong to one patient, or register them first."
            )
        volumes[index] = MetaTensor(moved, affine=first.affine)
    image = first if len(volumes) == 1 else MetaTensor(torch.cat([v.as_tensor() for v in volumes]), affine=first.affine)
    for one in range(len(CHANNELS)):
        for other in range(one):
            if torch.equal(image[one], image[other]):
                raise ScanError(
                    f"Found the same voxels in {CHANNELS[other]} and {CHANNELS[one]}, expected two scans. "
                    "Check the file names."
                )
    return image


def _find_doubts(image: MetaTensor) -> Iterator[str]:
    """Warn of what is unusual for a skull-stripped scan of a brain, with the evidence."""
    values = image.as_tensor().numpy()
    counts = zip(CHANNELS, (int(np.count_nonzero(channel < 0)) for channel in values), strict=True)
    negative = {channel: count for channel, count in counts if count}
    if negative:
        listed = ", ".join(f"{channel} {count}" for channel, count in negative.items())
        yield f"Found negative values ({listed} voxels). They are kept; only exact zeros count as air."
    spacing = [float(size) for size in image.pixdim]
    if max(spacing) > MAX_SPACING_MM:
        yield f"Found voxels of {' x '.join(f'{s:g}' for s in spacing)} mm. Small lesions are lost in slices over {MAX_SPACING_MM:g} mm."
    tissue = values != 0
    brain = int(np.count_nonzero(np.logical_or.reduce(tissue)))
    volume = brain * float(np.prod(spacing)) / 1000
    if volume > BRAIN_ML[1]:
        yield (
            f"Found {volume:.0f} mL that are not air, expected a brain of {BRAIN_ML[0]} to {BRAIN_ML[1]} mL. Is the "
            "skull still there? Strip it first, for instance with HD-BET or SynthStrip."
        )
    elif volume < BRAIN_ML[0]:
        yield (
            f"Found {volume:.0f} mL that are not air, expected a brain of {BRAIN_ML[0]} to {BRAIN_ML[1]} mL. Either "
            "most of it was not scanned, or the voxel size in the header is wrong."
        )
    for index, channel in enumerate(CHANNELS):
        cut = 1 - int(np.count_nonzero(tissue[index])) / brain
        if cut > 0.02:
            yield f"{channel}: {100 * cut:.0f}% of the brain are 0 here but not in other channels; its view is cut."
    yield from _find_swaps(values, np.logical_and.reduce(tissue))


def _find_swaps(values: np.ndarray, brain: np.ndarray) -> Iterator[str]:
    """Warn where intensities contradict the order of the channels. Limits: see docs/inference.md."""
    step = max(1, round((np.count_nonzero(brain) / 300_000) ** (1 / 3)))
    sample = values[:, ::step, ::step, ::step][:, brain[::step, ::step, ::step]].astype(float)
    if sample.shape[1] < 1000 or (sample.std(axis=1) == 0).any():
        return
    z = (sample - sample.mean(axis=1, keepdims=True)) / sample.std(axis=1, keepdims=True)
    flair, t1, t1gd, t2 = range(4)
    alike = np.corrcoef(z)
    partner = max((flair, t1, t2), key=lambda channel: alike[t1gd, channel])
    watery = max((flair, t1, t1gd), key=lambda channel: alike[t2, channel])
    fluid = np.median(z[:, z[t1] <= np.percentile(z[t1], 8)], axis=1)
    brightest = int(np.argmax(fluid))
    difference = z[t1gd] - z[t1]
    skewness = float((((difference - difference.mean()) / difference.std()) ** 3).mean())
    if alike[t1gd, partner] > alike[t1gd, t1] + 0.15:
        yield (
            f"T1gd resembles {CHANNELS[partner]} (correlation {alike[t1gd, partner]:.2f}) more than T1w "
            f"({alike[t1gd, t1]:.2f}), expected the reverse. Check the order of the channels."
        )
    elif alike[t2, watery] > alike[t2, flair] + 0.1:
        yield (
            f"T2w resembles {CHANNELS[watery]} (correlation {alike[t2, watery]:.2f}) more than FLAIR "
            f"({alike[t2, flair]:.2f}), expected the reverse. Check the order of the channels."
        )
    elif brightest != t2:
        yield (
            f"Fluid, the darkest of T1w, is brightest in {CHANNELS[brightest]} (z {fluid[brightest]:+.1f}, T2w "
            f"{fluid[t2]:+.1f}), expected in T2w. Are {CHANNELS[brightest]} and T2w swapped?"
        )
    elif skewness < -0.5:
        yield (
            f"T1w has bright spots that T1gd lacks (skewness of T1gd - T1w {skewness:+.1f}), expected the reverse: "
            "contrast agent only brightens. Are T1w and T1gd swapped?"
        )
