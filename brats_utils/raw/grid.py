"""Grids of voxels in SimpleITK's words: between NIfTI and ITK, and the grid that scans are prepared on."""

from itertools import product

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
    """Build an empty uint8 image of `SPACING_MM` over a scan: its axes run to the patient's left, posterior and superior.

    They are those of the scanner, not those of the slices, which radiographers tilt by up to 20 degrees: the network has
    learnt heads that lie straight. A scan of this spacing that is not tilted keeps its voxels as they are.
    """
    size = np.array(reference.GetSize())
    corners = [
        reference.TransformContinuousIndexToPhysicalPoint(size * ends - 0.5) for ends in product((0, 1), repeat=3)
    ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    grid = sitk.Image(np.maximum(1, np.round((high - low) / SPACING_MM)).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetSpacing([SPACING_MM] * 3)
    grid.SetOrigin((low + SPACING_MM / 2).tolist())
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
