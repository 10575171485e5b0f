"""Grids of voxels in SimpleITK's words: between NIfTI and ITK, and the grid that scans are prepared on."""

import numpy as np
import SimpleITK as sitk

from brats_utils.cases.formats import TO_RAS

SPACING_MM = 1.0
"""Of prepared scans, along each axis, as in BraTS. Source: Bakas 2017 (Scientific Data 4:170117)."""

MARGIN_MM = 20
"""Kept around the brain: room for skull and scalp in the picture of the preparation."""


def image_from_array(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Give SimpleITK the voxels of NIfTI, (X, Y, Z), and their (4, 4) affine, from voxels to mm in RAS."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((TO_RAS @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((TO_RAS @ affine[:3, 3]).tolist())
    return image


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels as NIfTI orders them, (X, Y, Z)."""
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def build_grid(reference: sitk.Image) -> sitk.Image:
    """Build an empty uint8 image of `SPACING_MM` over a scan: its axes, in the order left, posterior, superior as in BraTS.

    The first voxels of both share their outer corner, so that a scan of this spacing keeps its voxels as they are.
    """
    axes = sitk.DICOMOrient(reference, "LPS")
    spacing, size = np.array(axes.GetSpacing()), np.array(axes.GetSize())
    direction = np.reshape(axes.GetDirection(), (3, 3))
    grid = sitk.Image(np.maximum(1, np.round(size * spacing / SPACING_MM)).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetSpacing([SPACING_MM] * 3)
    grid.SetDirection(axes.GetDirection())
    grid.SetOrigin((np.array(axes.GetOrigin()) + direction @ ((SPACING_MM - spacing) / 2)).tolist())
    return grid


def crop_to(mask: sitk.Image) -> sitk.Image:
    """Cut a mask to its box, with `MARGIN_MM` around it as far as the grid goes."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    box = np.array(shape.GetBoundingBox(1))
    margin = round(MARGIN_MM / SPACING_MM)
    start = np.maximum(0, box[:3] - margin)
    stop = np.minimum(mask.GetSize(), box[:3] + box[3:] + margin)
    return sitk.RegionOfInterest(mask, (stop - start).tolist(), start.tolist())
