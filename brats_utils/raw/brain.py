"""The brain in a head: `deepbet` finds it, or the scan was stripped before."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.cases.checks import BRAIN_ML
from brats_utils.cases.formats import affine_of
from brats_utils.cases.nifti import read_volume
from brats_utils.paths import display_path
from brats_utils.raw.grid import array_of, image_from_array

MIN_EMPTY = 0.5
"""Share of exact zeros from which on a scan may be a stripped one: those of BraTS have .81 to .86, the raw one at most .1."""


BEST_FIRST = ("T1w", "T1gd", "FLAIR", "T2w")
"""Where `deepbet` sees the brain best: Dice .978, .972, .961 and .937 against HD-BET on a raw patient of TCGA-LGG."""


class MissingDeepbet(CaseError):
    """It is not installed."""


class NoBrain(CaseError):
    """`deepbet` sees no brain in a scan."""


def find_brain(image: sitk.Image) -> sitk.Image:
    """Find the brain in a scan of a head with the networks of `deepbet`: uint8 on the scan's grid.

    They were made for T1w scans of healthy adults; on other sequences, and beside a tumour, look at the result.

    Raises:
        CaseError: `deepbet` is not installed.
        NoBrain: it sees none.

    Source: Fisch 2024, deepbet (Computers in Biology and Medicine 179:108845).
    """
    networks = _load_deepbet()
    source = nib.Nifti1Image(array_of(image), affine_of(image))
    try:
        _, mask, _ = networks.run(source)
    except (AssertionError, ValueError, RuntimeError) as error:  # of an empty box, all of them
        raise NoBrain(f"deepbet finds no brain ({str(error).splitlines()[0]}), expected one.") from None
    return image_from_array(np.asarray(mask.dataobj).astype(np.uint8), source.affine)


@dataclass(frozen=True)
class Brains:
    """The brain in each scan, on its own grid."""

    masks: dict[str, sitk.Image]  # by channel, uint8; without those in which none could be found
    source: str  # the channel whose brain is taken for all
    stripped: frozenset[str]  # channels that show the brain alone
    warnings: tuple[str, ...]


def find_brains(images: Mapping[str, sitk.Image], *, given: tuple[str, sitk.Image] | None = None) -> Brains:
    """Find the brain in each scan, so that one can be compared with another, and choose whose is taken.

    Args:
        images: float32, by channel.
        given: the channel and the mask that the reader names.

    Raises:
        CaseError: `deepbet` is needed and not installed.
        NoBrain: there is none in the scan that all depends on, or what was found is too small or too large for one.
    """
    stripped = frozenset(name for name, image in images.items() if is_stripped(image))
    source = given[0] if given else next(name for name in BEST_FIRST if name in images)
    masks: dict[str, sitk.Image] = {}
    doubts = []
    for name, image in images.items():
        try:
            masks[name] = sitk.Cast(image != 0, sitk.sitkUInt8) if name in stripped else find_brain(image)
        except NoBrain as error:
            if name == source and not given:
                raise NoBrain(
                    f"{name}: {error} Is this a scan of a head? If it is, give the brain with --brain-mask."
                ) from None
            doubts.append(f"{name}: {error} Is this a scan of the same head? Look at preparation.png.")
        except MissingDeepbet:
            if not given:
                raise
    if given:
        masks[source] = given[1]
    elif source not in stripped:
        _check_volume(masks[source], source)
    if stripped:
        doubts.append(f"Found no skull in {', '.join(sorted(stripped))}; taken as stripped, and left as they are.")
    if source != BEST_FIRST[0] and not given and source not in stripped:
        doubts.append(f"{BEST_FIRST[0]} is missing, so the brain was looked for in {source}, which is less certain.")
    return Brains(masks, source, stripped, tuple(doubts))


def _check_volume(mask: sitk.Image, name: str) -> None:
    least, most = BRAIN_ML
    found = measure_ml(mask)
    if not least <= found <= most:
        raise NoBrain(
            f"{name}: found a brain of {found:.0f} mL, expected {least} to {most} mL. Is this a scan of a head, and of the whole "
            "of it? If it is, give the brain with --brain-mask."
        )


def read_brain_mask(path: Path, images: Mapping[str, sitk.Image]) -> tuple[str, sitk.Image]:
    """Read the reader's own brain, and tell which of the scans it lies on: that of the same grid, T1w first.

    Raises:
        CaseError: it cannot be read, is empty, or lies on the grid of none.
    """
    source, values = read_volume(path)
    for name in (one for one in BEST_FIRST if one in images):
        same_shape = values.shape == images[name].GetSize()
        if same_shape and np.allclose(source.affine, affine_of(images[name]), atol=1e-2):
            if not (values > 0).any():
                raise CaseError(f"{display_path(path)}: found an empty mask, expected a brain.")
            return name, image_from_array((values > 0).astype(np.uint8), source.affine)
    raise CaseError(
        f"{display_path(path)}: found a mask of {values.shape} voxels that lies on none of the scans voxel by voxel, expected the "
        f"grid of one of them, best of T1w: {', '.join(f'{name} {image.GetSize()}' for name, image in images.items())}."
    )


def is_stripped(image: sitk.Image) -> bool:
    """Whether a scan shows a brain alone: around it exact zeros, and what they surround has the volume of a brain."""
    return empty_share(image) >= MIN_EMPTY and measure_ml(sitk.BinaryFillhole(image != 0)) <= BRAIN_ML[1]


def empty_share(image: sitk.Image) -> float:
    """Share of the voxels that are exactly 0."""
    return float((sitk.GetArrayViewFromImage(image) == 0).mean())


def measure_ml(mask: sitk.Image) -> float:
    """Volume of a mask in mL."""
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()) / 1000)


@cache
def _load_deepbet() -> Any:
    try:
        from deepbet import BrainExtraction
    except ImportError as error:
        raise MissingDeepbet(
            f"Found no deepbet ({error}), expected it: it finds the brain in a head. Install it with `pip install '.[raw]'`, "
            "or give the brain with --brain-mask."
        ) from None
    with warnings.catch_warnings():  # torch.jit.load works and is called old; deepbet has nothing newer
        warnings.simplefilter("ignore", DeprecationWarning)
        return BrainExtraction(no_gpu=True)
