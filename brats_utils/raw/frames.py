"""Where the slices of a DICOM scan lie: a file each, or all as frames of one file (enhanced MR)."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.paths import display_path

MAX_UNEVEN = 0.1
"""Share of the usual gap by which one may differ: scanners round positions."""


def check_stack(places: np.ndarray, orientation: np.ndarray, name: str) -> None:
    """Refuse slices that make no straight, even stack: SimpleITK would read them into a wrong geometry.

    Args:
        places: (N, 3) mm, the first voxel of each slice, sorted along the normal.
        orientation: (6,), directions of a row and of a column.
        name: of the file or folder, for the message.

    Raises:
        CaseError: a slice is missing or there twice, or they are shifted sideways.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.diff(places, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    if gaps.min() < 0.01:
        raise CaseError(
            f"{name}: found {len(places)} slices, {int((gaps < 0.01).sum())} of them at the place of another, expected one at "
            "each: several echoes, phases or copies in one series. Keep the files of one, or export one alone."
        )
    uneven = np.flatnonzero(np.abs(gaps - usual) > MAX_UNEVEN * usual)
    if len(uneven):
        first = int(uneven[0])
        raise CaseError(
            f"{name}: found {gaps[first]:.1f} mm between slices {first + 1} and {first + 2} of {len(places)}, expected "
            f"{usual:.1f} mm as between the others. A slice is missing; copy the series again."
        )
    sideways = np.linalg.norm(steps - gaps[:, None] * normal, axis=1)
    if sideways.max() > MAX_UNEVEN * usual:
        raise CaseError(
            f"{name}: found slices shifted sideways by {sideways.max():.1f} mm each, as with a tilted gantry, expected a "
            "straight stack. Convert it with dcm2niix, which straightens it."
        )


def read_frames(path: Path, image: sitk.Image) -> sitk.Image:
    """Give the frames of an enhanced MR file their order and their place; another file of one slice is left as it is.

    GDCM looks at the first frame alone, and takes the others to follow it in steps of the slice thickness.

    Args:
        path: the file.
        image: as SimpleITK reads it, (X, Y, N), frames in the order of the file.

    Raises:
        CaseError: pydicom is not installed; the frames do not say where they lie, run in several directions, or make no even
            stack.

    Source: DICOM PS3.3, C.7.6.16, the multi-frame functional groups.
    """
    frames = image.GetSize()[2]
    if frames == 1:
        return image
    name = display_path(path)
    places, orientations, spacing = _read_geometry(path, frames)
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise CaseError(
            f"{name}: found {frames} frames in several directions, as of a localiser, expected one. Name another series."
        )
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    order = np.argsort(places @ normal, kind="stable")
    places = places[order]
    check_stack(places, orientations[0], name)
    values = sitk.GetArrayFromImage(image)[order]
    placed = sitk.GetImageFromArray(values)
    step_mm = float(np.median(np.diff(places @ normal)))
    placed.SetSpacing([spacing[1], spacing[0], step_mm])  # DICOM gives that of rows first
    placed.SetOrigin(places[0].tolist())
    placed.SetDirection(np.stack([orientations[0, :3], orientations[0, 3:], normal], axis=1).ravel().tolist())
    return placed


def _read_geometry(path: Path, frames: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Place (N, 3) and orientation (N, 6) of each frame, and the spacing of the first: between rows, between columns; mm."""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise CaseError(
            f"{display_path(path)}: found {frames} frames in one file and no pydicom ({error}), expected it: it reads where "
            "they lie. Install it with `pip install '.[raw]'`."
        ) from None
    header = dcmread(path, stop_before_pixels=True)
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != frames:
        raise CaseError(
            f"{display_path(path)}: found {frames} frames and places for {len(groups)}, expected one for each. Export it again."
        )
    _check_rescaling(groups, shared, display_path(path))
    try:
        places = [_find(group, shared, "PlanePositionSequence").ImagePositionPatient for group in groups]
        orientations = [_find(group, shared, "PlaneOrientationSequence").ImageOrientationPatient for group in groups]
        spacing = _find(groups[0], shared, "PixelMeasuresSequence").PixelSpacing
        return np.array(places, dtype=float), np.array(orientations, dtype=float), [float(size) for size in spacing]
    except (AttributeError, TypeError, ValueError) as error:
        raise CaseError(
            f"{display_path(path)}: found {frames} frames that do not say where they lie ({error}), expected a place for each, "
            "as enhanced MR has it. Export the series with one file a slice."
        ) from None


def _check_rescaling(groups: Any, shared: Any, name: str) -> None:
    """Refuse frames whose stored numbers mean different intensities: GDCM rescales all as the first."""
    found = set()
    for group in groups:
        with suppress(AttributeError):  # a frame without is not rescaled
            item = _find(group, shared, "PixelValueTransformationSequence")
            found.add((float(item.RescaleSlope), float(item.RescaleIntercept)))
    if len(found) > 1:
        raise CaseError(
            f"{name}: found frames rescaled in {len(found)} ways, expected one for all. Export the series with one file a slice."
        )


def _find(group: Any, shared: Any, name: str) -> Any:
    """The one item of a sequence, of the frame or else of all frames."""
    for one in (group, shared):
        if one is not None and name in one:
            return one[name][0]
    raise AttributeError(f"no {name}")
