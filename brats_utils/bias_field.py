"""Correct the bias field of FLAIR: brightness that the receive coil leaves, and that is no tissue."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy import ndimage

from brats_utils.cases.checks import find_tissue
from brats_utils.labels import CHANNELS

FLAIR = CHANNELS.index("FLAIR")

GRID_MM = 6.0
"""Voxel size that the field is estimated at. It is smooth, so little is lost by it, and a channel takes a second or two of one core."""

ITERATIONS = (40, 40, 40)
"""At most, for each level. Each level halves the distance between the control points of the field. Source: tried on the
development cases (docs/phantom.md): two levels correct next to nothing, four take large tumours for a bias field."""

DARKEST = 0.25
"""Voxels darker than this share of the median brain are left out. N4 works on logarithms: a few voxels near 0, as
interpolation leaves them at the edge of a stripped brain, stretch its histogram until it finds no field at all."""

SURFACE_MM = 15.0
"""Tumour that lies deeper than this is left out of the estimate, so that it is not taken for bias field. Nearer to the
surface the coil is brightest, and what is called tumour there may be nothing else."""

MARGIN_MM = 4.0
"""Around the tumour that is left out, where a prediction fades."""


def estimate_bias_field(channel: np.ndarray, *, spacing_mm: float, left_out: np.ndarray | None = None) -> np.ndarray:
    """Estimate the bias field of one channel with N4.

    Args:
        channel: (X, Y, Z) float, grey values as scanned (not z-scored), 0 in the background.
        spacing_mm: size of its voxels.
        left_out: (X, Y, Z) bool, voxels that say nothing about the field, such as tumour.

    Returns:
        (X, Y, Z) float32, natural logarithm of the factor by which each voxel is too bright; its mean over the brain is 0.

    Source:
        Tustison 2010, N4ITK, doi 10.1109/TMI.2010.2046908; SimpleITK's implementation.
    """
    flat = np.zeros(channel.shape, np.float32)
    positive = channel[channel > 0]
    if not positive.size:
        return flat
    brain = channel > DARKEST * np.median(positive)
    used = brain if left_out is None else brain & ~left_out
    image = sitk.GetImageFromArray(np.maximum(channel, 0).astype(np.float32))
    mask = sitk.GetImageFromArray(used.astype(np.uint8))
    shrink = [max(1, round(GRID_MM / spacing_mm))] * 3
    coarse_image, coarse_mask = sitk.Shrink(image, shrink), sitk.Shrink(mask, shrink)
    if not sitk.GetArrayViewFromImage(coarse_mask).any():
        return flat
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.Execute(coarse_image, coarse_mask)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
    return (field - field[brain].mean()).astype(np.float32)


def find_deep_tumour(tumour: torch.Tensor, brain: torch.Tensor, *, spacing_mm: float) -> torch.Tensor:
    """Choose the part of a tumour that is left out of the estimate: deeper than `SURFACE_MM`, with a margin around it.

    Both are (X, Y, Z) bool, and so is the result.
    """
    padded = np.pad(brain.numpy(), 1)  # beyond the box is background
    depth_mm = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    deep = tumour.numpy() & (depth_mm > SURFACE_MM)
    if not deep.any():
        return torch.from_numpy(deep)
    around_mm = ndimage.distance_transform_edt(~deep, sampling=spacing_mm)
    return torch.from_numpy(around_mm <= MARGIN_MM)


class CorrectBiasd(Transform):
    """Divide FLAIR by its bias field; tumour that is known is left out of the estimate.

    Takes `image`, a MetaTensor (4, X, Y, Z) of grey values as scanned, not z-scored; `label` (1, X, Y, Z), where there
    is one, or else `tumour` (1, X, Y, Z), what a first prediction calls so: what is not 0 is tumour.

    The other channels stay as they are: on the development cases their correction took more from TC and ET than it gave
    (docs/phantom.md).
    """

    def __init__(self, spacing_mm: float) -> None:
        self.spacing_mm = spacing_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Give the dictionary with another `image`."""
        image: MetaTensor = data["image"]
        channels = image.as_tensor().clone()
        known = data.get("label", data.get("tumour"))
        left_out = None
        if known is not None:
            tumour = torch.as_tensor(known)[0] != 0
            left_out = find_deep_tumour(tumour, find_tissue(channels), spacing_mm=self.spacing_mm).numpy()
        flair = channels[FLAIR].numpy()
        field = estimate_bias_field(flair, spacing_mm=self.spacing_mm, left_out=left_out)
        channels[FLAIR] = torch.from_numpy(flair / np.exp(field))
        return {**data, "image": MetaTensor(channels, affine=image.affine)}
