"""Grids in the words of NIfTI and of ITK, and the one that scans are prepared on."""

import numpy as np
import pytest
import SimpleITK as sitk
from raw_heads import make_grid, make_motion

from brats_utils.cases.formats import affine_of
from brats_utils.raw.grid import array_of, build_grid, image_from_array


def test_nifti_and_itk_have_one_place_for_each_voxel():
    grid = make_grid((2.0, 3.0, 5.0))
    grid.SetDirection(make_motion((20, 5, 10)).GetMatrix())
    back = image_from_array(array_of(grid), affine_of(grid))
    assert back.GetOrigin() == pytest.approx(grid.GetOrigin())
    assert back.GetDirection() == pytest.approx(grid.GetDirection())
    ras = affine_of(grid) @ [3, 4, 5, 1]
    assert grid.TransformIndexToPhysicalPoint((3, 4, 5)) == pytest.approx((-ras[0], -ras[1], ras[2]))


def test_the_grid_has_voxels_of_1_mm_over_the_whole_scan():
    built = build_grid(make_grid((2.0, 2.0, 5.5), extent_mm=(200, 200, 121)))
    assert built.GetSpacing() == (1, 1, 1)
    assert built.GetSize() == (200, 200, 121)


def test_a_scan_of_1_mm_keeps_its_voxels():
    scan = make_grid((1.0, 1.0, 1.0), extent_mm=(60, 70, 80))
    built = build_grid(scan)
    assert built.GetOrigin() == pytest.approx(scan.GetOrigin())
    assert built.GetSize() == scan.GetSize()


def test_a_sagittal_scan_is_prepared_with_axial_slices():
    sagittal = sitk.PermuteAxes(make_grid((4.0, 5.0, 6.0)), [1, 2, 0])
    built = build_grid(sagittal)
    assert np.reshape(built.GetDirection(), (3, 3)) == pytest.approx(np.eye(3))
    assert built.GetSize() == (200, 230, 198)


def test_slices_that_are_tilted_are_prepared_straight():
    scan = make_grid((1.0, 1.0, 5.0), extent_mm=(100, 100, 100))
    scan.SetDirection(make_motion((-18, 3, 2)).GetMatrix())
    built = build_grid(scan)
    assert built.GetDirection() == tuple(np.eye(3).ravel())
    for corner in ((0, 0, 0), (99, 99, 19), (0, 99, 0)):
        place = built.TransformPhysicalPointToContinuousIndex(scan.TransformIndexToPhysicalPoint(corner))
        assert np.all(np.array(place) >= 0)
        assert np.all(np.array(place) < built.GetSize())
