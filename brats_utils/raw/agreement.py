"""Whether a registration worked: how well the brains of two scans cover each other, and how far one had to move."""

from collections.abc import Mapping
from typing import Any

import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.raw.registration import Registration

MIN_OVERLAP, GOOD_OVERLAP = 0.8, 0.93
"""Dice of two brains that `deepbet` found, each in its own scan: refused below the first, doubted below the second."""

GOOD_OVERLAP_T2W = 0.83
"""For T2w. `deepbet` was made for T1w and finds this brain less exactly: aligned T2w scans of 12 raw phantoms, in
slices of 1 to 5.5 mm, had .84 or more."""

MAX_ROTATION_DEG, MAX_SHIFT_MM = 30.0, 60.0
"""More than a head turns or slides on a scanner's table between two scans of one visit."""


def check_agreement(
    images: Mapping[str, sitk.Image],
    brains: Mapping[str, sitk.Image],
    registrations: Mapping[str, Registration],
    *,
    reference: str,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Compare the brain of each scan with that of the reference, as the scanner had them and registered.

    Returns:
        By channel the `overlap`, Dice before and after, where both brains are known; and doubts, a sentence each.

    Raises:
        CaseError: the brains are not aligned: another patient, another body part, or a registration that failed.
    """
    found: dict[str, dict[str, Any]] = {}
    doubts = []
    for name in images:
        registration = registrations[name]
        if name == reference:
            continue
        if registration.rotation_deg > MAX_ROTATION_DEG or registration.shift_mm > MAX_SHIFT_MM:
            doubts.append(
                f"{name} had to be moved by {registration.shift_mm:.0f} mm and {registration.rotation_deg:.0f} degrees to lie on "
                f"{reference}, more than usual. Look at preparation.png."
            )
        if registration.after < registration.before:
            doubts.append(f"{name}: registration made the agreement with {reference} worse. Look at preparation.png.")
        if name not in brains or reference not in brains:
            continue
        before, after = (
            measure_overlap(brains[reference], brains[name], transform)
            for transform in (sitk.Transform(3, sitk.sitkIdentity), registration.transform)
        )
        good = GOOD_OVERLAP_T2W if name == "T2w" else GOOD_OVERLAP
        found[name] = {"overlap": {"before": round(before, 3), "after": round(after, 3)}}
        if after < MIN_OVERLAP:
            raise CaseError(
                f"{name} does not lie on {reference}: after registration their brains share {after:.2f} (Dice; {before:.2f} before), "
                f"expected {good} or more. Is it a scan of another patient, or of another part of the body?"
            )
        if after < good:
            doubts.append(
                f"{name}: after registration its brain and that of {reference} share {after:.2f} (Dice), expected {good} or "
                "more. Is it the same patient? Look at preparation.png."
            )
    return found, doubts


def measure_overlap(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Dice of two masks on the grid of the first, where the second was taken: a cut view is not held against it."""
    soft = sitk.Cast(moving, sitk.sitkFloat32)
    moved = sitk.GetArrayFromImage(sitk.Resample(soft, fixed, transform, sitk.sitkLinear, -1.0))
    seen = moved >= 0
    one, other = sitk.GetArrayFromImage(fixed)[seen] > 0, moved[seen] > 0.5
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 0.0
