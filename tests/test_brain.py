"""The networks of deepbet run as the package brings them."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk
from raw_heads import find_ellipsoid, make_grid, sample_head

from brats_utils.raw import brain
from brats_utils.raw.brain import MissingDeepbet, NoBrain, find_brain, find_brains, is_stripped


@pytest.mark.slow
def test_a_brain_is_found_on_the_grid_of_the_scan():
    head = sample_head("T1w", grid=make_grid((4.0, 4.0, 5.0)))
    found = find_brain(head)
    assert found.GetSize() == head.GetSize()
    assert found.GetOrigin() == pytest.approx(head.GetOrigin())
    assert 500 < brain.measure_ml(found) < 2500


def test_without_deepbet_a_line_says_what_to_install(monkeypatch):
    brain._load_deepbet.cache_clear()
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with pytest.raises(MissingDeepbet, match=r"pip install '\.\[raw\]'"):
        find_brain(sample_head("T1w", grid=make_grid((8.0, 8.0, 8.0))))


def test_a_head_is_not_stripped_and_a_brain_is():
    head = sample_head("T1w")
    assert not is_stripped(head)
    values = sitk.GetArrayFromImage(head)
    values[values < 200] = 0  # air that the scanner has masked
    masked = sitk.GetImageFromArray(values)
    masked.CopyInformation(head)
    assert not is_stripped(masked)
    assert is_stripped(sitk.Mask(head, find_ellipsoid(head)))


def test_where_deepbet_sees_nothing_that_is_said(monkeypatch):
    class Blind:
        def run(self, _):
            raise AssertionError("Not enough foreground to calculate bounding box")

    monkeypatch.setattr(brain, "_load_deepbet", Blind)
    with pytest.raises(NoBrain, match=r"deepbet finds no brain .Not enough foreground"):
        find_brain(sample_head("T1w", grid=make_grid((8.0, 8.0, 8.0))))


@pytest.mark.parametrize(("half_mm", "found"), [(30, "1[0-9]{2} mL"), (95, "3[0-9]{3} mL")])
def test_what_is_no_brain_in_size_is_refused(monkeypatch, half_mm, found):
    """A knee, or a head whose spacing is wrong, in the scan that all depends on."""
    grid = make_grid((5.0, 5.0, 5.0))
    x, y, z = (np.linspace(-99.0, 99.0, n) for n in grid.GetSize())
    ball = sitk.GetImageFromArray(((x**2 + y[:, None] ** 2 + z[:, None, None] ** 2) < half_mm**2).astype(np.uint8))
    ball.SetSpacing(grid.GetSpacing())
    monkeypatch.setattr(brain, "find_brain", lambda _: ball)
    with pytest.raises(NoBrain, match=f"T1w: found a brain of {found}, expected 700 to 2300 mL"):
        find_brains({"T1w": sample_head("T1w", grid=grid)})
