"""Grids of voxels: reorienting and resampling volumes, and comparing where they lie."""

from collections.abc import Sequence
from itertools import product

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from scipy import ndimage

MAX_SHIFT_VOXELS = 0.1
"""A volume whose corners are this near to those of a grid lies on it: headers of programs differ by rounding."""


def find_box(mask: torch.Tensor) -> tuple[slice, ...]:
    """The smallest box that holds all of a (X, Y, Z) mask; the first voxel, if it is empty."""
    boxes = ndimage.find_objects(mask.numpy().view(np.uint8))
    return boxes[0] if boxes else (slice(1),) * mask.ndim


def reorient_volume(volume: torch.Tensor, affine: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Reorient a volume by swapping and flipping axes until they run as the target's: right, anterior, superior in mm.

    Args:
        volume: (C, X, Y, Z) of any dtype, on any grid.
        affine: (4, 4), from voxels to mm, or to the voxels of another grid.

    Returns:
        (C, X, Y, Z), the same voxels in another order.
    """
    orientation = nib.orientations.io_orientation(np.asarray(affine))
    axes, turns = orientation[:, 0].astype(int), orientation[:, 1]
    order = [int(np.flatnonzero(axes == axis)[0]) for axis in range(3)]
    turned = volume.as_subclass(torch.Tensor).permute(0, *(1 + axis for axis in order))
    mirrored = [1 + position for position, axis in enumerate(order) if turns[axis] < 0]
    return turned.flip(mirrored) if mirrored else turned  # without any it would copy


def reorient_to_grid(
    volume: torch.Tensor, affine: np.ndarray, *, onto: np.ndarray, shape: Sequence[int]
) -> tuple[torch.Tensor, bool]:
    """Reorient (C, X, Y, Z) to the axes of a grid with affine `onto`, and tell whether it then lies on that grid."""
    to_grid = np.linalg.inv(onto) @ affine
    turned = reorient_volume(volume, to_grid)
    to_grid = to_grid @ nib.orientations.inv_ornt_aff(nib.io_orientation(to_grid), volume.shape[1:])
    ends = [(0, size - 1) for size in shape]
    corners = np.array([(*corner, 1) for corner in product(*ends)]).T
    shift = np.abs(to_grid @ corners - corners).max()
    same_shape = tuple(turned.shape[1:]) == tuple(shape)
    return turned, bool(same_shape and shift < MAX_SHIFT_VOXELS)


def resample_to_grid(volume: torch.Tensor, affine: torch.Tensor, *, onto: MetaTensor) -> torch.Tensor:
    """Bring (C, x, y, z) values of a grid with this affine to the grid of an image, (C, X, Y, Z) with 0 outside."""
    to_scan = np.linalg.inv(np.asarray(onto.affine)) @ np.asarray(affine)
    same_size = np.allclose(np.abs(to_scan[:3, :3]).sum(axis=0), 1, atol=1e-3)
    if same_size and np.allclose(to_scan, to_scan.round(), atol=1e-3):  # cropped and reoriented only: move whole voxels
        turned = reorient_volume(volume, to_scan)
        last_voxel = [size - 1 for size in volume.shape[1:]]
        corners = to_scan @ np.array([[0, 0, 0, 1], [*last_voxel, 1]]).T
        start = corners[:3].min(axis=1).round().astype(int)
        place = [slice(at, at + size) for at, size in zip(start, turned.shape[1:], strict=True)]
        pasted = torch.zeros(len(volume), *onto.shape[1:])
        pasted[:, *place] = turned
        return pasted
    resample = ResampleToMatch(mode="bilinear", padding_mode="zeros")
    return torch.Tensor(resample(MetaTensor(volume, affine=affine), img_dst=onto))
