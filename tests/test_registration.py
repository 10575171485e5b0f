"""Registration finds how a head has moved, whatever the contrast, the slices and the view."""

import numpy as np
import pytest
import SimpleITK as sitk
from raw_heads import make_grid, make_motion, sample_head

from brats_utils.raw.registration import register

pytestmark = pytest.mark.slow

POINTS = [(x, y, z) for x in (-50.0, 50.0) for y in (-60.0, 60.0) for z in (-40.0, 40.0)]

TURNED = make_motion((10, -6, 9), (15, -12, 18))


def error_mm(registration, motion):
    """How far corners of the brain are from where they belong; the fixed head lies still."""
    found = [registration.transform.TransformPoint(point) for point in POINTS]
    true = [motion.TransformPoint(point) for point in POINTS]
    return float(np.linalg.norm(np.subtract(found, true), axis=1).max())


@pytest.fixture(scope="module")
def fixed():
    return sample_head("T1gd")


@pytest.mark.parametrize("channel", ["FLAIR", "T2w"])
def test_a_head_that_turned_and_slid_is_found_in_another_contrast(fixed, channel):
    found = register(fixed, sample_head(channel, motion=TURNED))
    assert error_mm(found, TURNED) < 1
    assert found.after > found.before + 0.1


def test_thick_slices_and_a_cut_view_are_no_obstacle(fixed):
    grid = make_grid((2.0, 2.0, 5.5), extent_mm=(200, 200, 121))
    assert error_mm(register(fixed, sample_head("FLAIR", grid=grid, motion=TURNED)), TURNED) < 2


def test_a_patient_who_got_up_is_found_from_the_centres(fixed):
    far = make_motion((0, 0, 8), (0, 0, 300))
    grid = make_grid()
    grid.SetOrigin(np.add(grid.GetOrigin(), (0, 0, 300)).tolist())
    found = register(fixed, sample_head("T1w", grid=grid, motion=far))
    assert found.start in ("centres of the heads", "centres of the grids")
    assert error_mm(found, far) < 1


def test_the_same_scans_give_the_same_transform(fixed):
    moving = sample_head("T2w", motion=TURNED)
    one, other = (register(fixed, moving).transform.GetParameters() for _ in range(2))
    assert one == other


def test_shift_and_rotation_are_told(fixed):
    still = sample_head("T1w")
    found = register(fixed, still)
    assert found.rotation_deg < 1
    assert found.shift_mm < 1
    assert isinstance(found.transform, sitk.Euler3DTransform)
