"""From probabilities to masks: threshold, nested regions, and small connected components removed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from brats_utils.labels import REGIONS

MIN_ENHANCING_ML = 1.0
"""Less enhancing tumour than this in a whole scan is taken for noise and becomes non-enhancing core.

Under the BraTS rule a single false voxel in a scan without ET costs the whole score. Source: the post-processing of
Isensee 2018 (No New-Net, arXiv 1809.10483); chosen on validation cases of an earlier phantom.
"""

MIN_TUMOUR_ML = 1.0
"""A connected component of tumour smaller than this is taken for noise.

Chosen on validation cases of an earlier phantom. The price: a real satellite lesion of this size is lost.
"""

NEIGHBOURS = np.ones((3, 3, 3))
"""Of a voxel in a connected component: all 26 that touch it, by a face, an edge or a corner."""


def threshold_probabilities(
    probabilities: torch.Tensor, segmented: Sequence[bool], *, voxel_ml: float, keep_small: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Threshold probabilities at one half, on whatever grid they are, and post-process the masks.

    Args:
        probabilities: (3, X, Y, Z) float32, in the order of `REGIONS`.
        segmented: whether each of the regions is segmented at all; ET is not where T1gd is missing.
        voxel_ml: volume of a voxel in mL.
        keep_small: see `postprocess_regions`.

    Returns:
        (3, X, Y, Z) bool, nested: all that is above one half, and what post-processing leaves of it.
    """
    nested = postprocess_regions(probabilities > 0.5, voxel_ml=voxel_ml, keep_small=True)
    thresholded = nested & torch.tensor(segmented)[:, None, None, None]
    return thresholded, postprocess_regions(thresholded, voxel_ml=voxel_ml, keep_small=keep_small)


def postprocess_regions(regions: torch.Tensor, *, voxel_ml: float, keep_small: bool = False) -> torch.Tensor:
    """Nest the regions and remove small connected components: see `MIN_TUMOUR_ML` and `MIN_ENHANCING_ML`.

    Args:
        regions: (3, X, Y, Z) bool, each thresholded by itself.
        voxel_ml: volume of a voxel in mL.
        keep_small: nest them only.

    Returns:
        (3, X, Y, Z) bool, ET within TC within WT, as `labels.regions_to_labels` nests them; small ET counts as core
        that does not enhance.
    """
    if not keep_small:
        regions = regions & _find_large_components(regions.any(0), voxel_ml=voxel_ml)
    core, whole, enhancing = regions
    core = core | enhancing
    whole = whole | core
    enhancing_ml = float(enhancing.sum()) * voxel_ml
    if not keep_small and enhancing_ml < MIN_ENHANCING_ML:
        enhancing = torch.zeros_like(enhancing)
    return torch.stack([core, whole, enhancing])


def _find_large_components(tumour: torch.Tensor, *, voxel_ml: float) -> torch.Tensor:
    """Find the connected components, by 26 neighbours, of (X, Y, Z) bool that are no smaller than `MIN_TUMOUR_ML`."""
    components, _ = ndimage.label(tumour.numpy(), NEIGHBOURS)
    volumes_ml = np.bincount(components.ravel()) * voxel_ml
    is_large = volumes_ml >= MIN_TUMOUR_ML
    is_large[0] = False  # component 0 is what is not tumour
    return torch.from_numpy(is_large[components])


def measure_volumes(regions: torch.Tensor, segmented: Sequence[bool], *, voxel_ml: float) -> dict[str, float]:
    """Measure the volume of each region, (3, X, Y, Z) bool, in mL; NaN for one that was not segmented."""
    volumes = {}
    for region, mask, was_segmented in zip(REGIONS, regions, segmented, strict=True):
        volumes[region.name] = float(mask.sum()) * voxel_ml if was_segmented else math.nan
    return volumes


def measure_removed(removed: torch.Tensor, *, voxel_ml: float) -> dict[str, float]:
    """Describe what post-processing has removed, (3, X, Y, Z) bool, as `Prediction.removed` has it."""
    _, tumour, enhancing = removed
    _, count = ndimage.label(tumour.numpy(), NEIGHBOURS)
    return {"pieces": count, "ml": float(tumour.sum()) * voxel_ml, "ET_ml": float(enhancing.sum()) * voxel_ml}
