"""From probabilities to masks: threshold, nested regions, and small connected components removed."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

MIN_ENHANCING_ML = 1.0
"""Less enhancing tumour than this in a whole scan is taken for noise and becomes non-enhancing core.

Under the BraTS rule a single false voxel in a scan without ET costs the whole score. Source: the post-processing of
Isensee 2018 (No New-Net, arXiv 1809.10483); chosen on validation cases of an earlier phantom.
"""

MIN_TUMOUR_ML = 1.0
"""A connected component of tumour smaller than this is taken for noise.

Chosen on validation cases of an earlier phantom. The price: a real satellite lesion of this size is lost.
"""


def threshold_probabilities(
    probabilities: torch.Tensor, sought: Sequence[bool], *, voxel_ml: float, keep_small: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Threshold probabilities at one half, on whatever grid they are, and post-process the masks.

    Args:
        probabilities: (3, X, Y, Z) float32, in the order of `REGIONS`.
        sought: whether each of the regions is segmented at all.
        voxel_ml: volume of a voxel in mL.
        keep_small: see `postprocess_regions`.

    Returns:
        (3, X, Y, Z) bool, nested: all that is above one half, and what post-processing leaves of it.
    """
    every = postprocess_regions(probabilities > 0.5, voxel_ml=voxel_ml, keep_small=True)
    every &= torch.tensor(sought)[:, None, None, None]
    return every, postprocess_regions(every, voxel_ml=voxel_ml, keep_small=keep_small)


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
        components, _ = ndimage.label(regions.any(0).numpy(), np.ones((3, 3, 3)))
        large = np.bincount(components.ravel()) * voxel_ml >= MIN_TUMOUR_ML
        large[0] = False  # component 0 is what is not tumour
        regions = regions & torch.from_numpy(large[components])
    core, whole, enhancing = regions
    core = core | enhancing
    if not keep_small and float(enhancing.sum()) * voxel_ml < MIN_ENHANCING_ML:
        enhancing = torch.zeros_like(enhancing)
    return torch.stack([core, whole | core, enhancing])
