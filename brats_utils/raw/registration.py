"""Rigid registration: where a point of one scan lies in another of the same head."""

import math
from dataclasses import dataclass
from threading import Lock

import numpy as np
import SimpleITK as sitk

LEVELS_MM = (4.0, 2.0, 1.0)
"""Voxel sizes from coarse to fine; a scan whose voxels are larger keeps them along that axis."""

BINS = 32
"""Of the joint histogram. Source: Mattes 2003 takes 32 to 50 (PET-CT image registration, IEEE TMI 22:120)."""

MAX_SAMPLES = 50_000
"""Voxels that the metric looks at, spread evenly. With 150,000 two heads of the raw phantom were .08 and .11 mm off, with
50,000 .07 and .12; with a fifth of the voxels of coarse scans, 15,000, a head of the tests was 1.6 instead of .5 mm off."""

RELAXATION = 0.8
"""What a step shrinks to where the gradient turns. At SimpleITK's .5, and with steps of 1 mm at all levels, heads of the
tests stopped up to 10 mm off; at .8, and half a voxel, three motions were within about 1 mm. On a real patient both agree."""

LAST_STEP = 0.001
"""In voxels of a level: where a smaller step would be next, the search ends. At .005 a head of the tests in slices of 5.5 mm
stopped 5 mm off, at .001 about 1."""

SEED = 1
"""Of the places where the metric samples: the same scans give the same transform. 0 would mean the clock to SimpleITK."""

CLEARLY_BETTER = 0.005
"""In nats: what a start must gain over one that is listed before it. Starts that meet differ by less."""


@dataclass(frozen=True)
class Registration:
    """Where the points of the fixed scan lie in the moving one, and how well both then agree."""

    transform: sitk.Euler3DTransform  # from points of the fixed scan to those of the moving one, in mm, LPS
    start: str  # what it was started from: `scanner`, `centres of the heads`, `centres of the grids`, or `none needed`
    before: float  # mutual information of both as the scanner's coordinates have them, in nats
    after: float  # likewise, registered

    @property
    def matrix(self) -> np.ndarray:
        """The transform as (4, 4), for points (x, y, z, 1) in mm, LPS."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.transform.GetMatrix(), (3, 3))
        matrix[:3, 3] = self.transform.TransformPoint((0.0, 0.0, 0.0))
        return matrix

    @property
    def rotation_deg(self) -> float:
        """Angle of the rotation."""
        trace = float(np.trace(np.reshape(self.transform.GetMatrix(), (3, 3))))
        return math.degrees(math.acos(min(1.0, max(-1.0, (trace - 1) / 2))))

    @property
    def shift_mm(self) -> float:
        """How far the centre of the fixed scan moves."""
        return float(np.linalg.norm(self.transform.GetTranslation()))


class _OneThread:
    """Let ITK use one thread while any registration runs: several add up in another order each time, and end 1e-5 mm apart.

    ITK lets go of Python's lock, so that registrations still run side by side, each on a core of its own.
    """

    def __init__(self) -> None:
        self.lock, self.running, self.before = Lock(), 0, 1

    def __enter__(self) -> None:
        with self.lock:
            if self.running == 0:
                self.before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
                sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
            self.running += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.running -= 1
            if self.running == 0:
                sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(self.before)


_one_thread = _OneThread()


def register(fixed: sitk.Image, moving: sitk.Image) -> Registration:
    """Find the rigid motion between two scans of one head, skull and all, whatever their contrasts and grids.

    The scanner's coordinates are right where the patient lay still; where he got up in between, the centres of the two
    heads are nearer. So all starts are followed on coarse voxels, and the best by mutual information on the finer ones.

    Args:
        fixed: float32, the scan whose space is kept.
        moving: float32, the scan to be brought there.

    Source: Mattes 2003 (IEEE TMI 22:120) for the metric; the constants above say where the settings come from.
    """
    with _one_thread:
        return _register(fixed, moving)


def _register(fixed: sitk.Image, moving: sitk.Image) -> Registration:
    first, *finer = [_build_level(fixed, moving, spacing_mm) for spacing_mm in LEVELS_MM]
    starts = _propose_starts(fixed, moving)
    coarse = {name: _optimise(first, start) for name, start in starts.items()}
    found = {name: measure_agreement(fixed, moving, transform) for name, transform in coarse.items()}
    best = next(name for name in found if found[name] > max(found.values()) - CLEARLY_BETTER)
    transform = coarse[best]
    for level in finer:
        transform = _optimise(level, transform)
    before = measure_agreement(fixed, moving, starts["scanner"])
    return Registration(transform, best, before, measure_agreement(fixed, moving, transform))


def stay(image: sitk.Image) -> Registration:
    """The registration of a scan that stays where it is."""
    still = sitk.Euler3DTransform()
    still.SetCenter(_middle_of(image).tolist())
    agreement = measure_agreement(image, image, still)
    return Registration(still, "none needed", agreement, agreement)


def measure_agreement(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Mutual information in nats of the fixed scan and the moving one, both on the fixed scan's coarse voxels.

    Where the moving scan was not taken it counts as background: a small overlap then cannot win by chance.
    """
    grid = _coarsen(fixed, LEVELS_MM[0])
    moved = sitk.Resample(_coarsen(moving, LEVELS_MM[0]), grid, transform, sitk.sitkLinear, 0.0)
    joint, *_ = np.histogram2d(_bin(grid), _bin(moved), bins=BINS)
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


def _bin(image: sitk.Image) -> np.ndarray:
    """Grey values, flat, without the few brightest that would leave all others in one bin."""
    values = sitk.GetArrayViewFromImage(image).ravel()
    low, high = np.percentile(values, [0.1, 99.5])
    return np.clip(values, low, high)


def _propose_starts(fixed: sitk.Image, moving: sitk.Image) -> dict[str, sitk.Euler3DTransform]:
    middle = _middle_of(fixed)
    shifts = {
        "scanner": np.zeros(3),
        "centres of the heads": _centre_of_head(moving) - _centre_of_head(fixed),
        "centres of the grids": _middle_of(moving) - middle,
    }
    starts = {}
    for name, shift in shifts.items():
        starts[name] = sitk.Euler3DTransform()
        starts[name].SetCenter(middle.tolist())
        starts[name].SetTranslation(shift.tolist())
    return starts


def _middle_of(image: sitk.Image) -> np.ndarray:
    """The middle of the grid in mm."""
    index = [(size - 1) / 2 for size in image.GetSize()]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))


def _centre_of_head(image: sitk.Image) -> np.ndarray:
    """Centre of mass in mm of what is no background, every bright voxel counting alike."""
    head = sitk.OtsuThreshold(_coarsen(image, LEVELS_MM[0]), 0, 1)
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(head)
    return np.array(shape.GetCentroid(1)) if shape.GetNumberOfLabels() else _middle_of(image)


@dataclass(frozen=True)
class _Level:
    """Two scans at one voxel size."""

    spacing_mm: float
    fixed: sitk.Image
    moving: sitk.Image  # smoothed, on voxels half as large


def _build_level(fixed: sitk.Image, moving: sitk.Image, spacing_mm: float) -> _Level:
    """Both scans for one step of the search; on the finest the moving one keeps its voxels."""
    if spacing_mm > LEVELS_MM[-1]:
        moving = sitk.SmoothingRecursiveGaussian(_coarsen(moving, spacing_mm / 2), spacing_mm / 2)
    return _Level(spacing_mm, _coarsen(fixed, spacing_mm), moving)


def _coarsen(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Average voxels along each axis to about this size, where they are finer."""
    factors = [max(1, round(spacing_mm / size)) for size in image.GetSpacing()]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _optimise(level: _Level, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Follow the gradient of the mutual information from a start, on voxels of one size.

    The gradient is that of neighbouring voxels: ITK's filter, which is the default, smooths it by the largest spacing, so
    that slices of 5.5 mm blur it within the slices as well. With it two heads of the raw phantom ended .4 mm off, without .1.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, MAX_SAMPLES / level.fixed.GetNumberOfPixels()), SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        level.spacing_mm / 2, LAST_STEP * level.spacing_mm, 200, relaxationFactor=RELAXATION
    )
    method.SetOptimizerScalesFromPhysicalShift()
    found = sitk.Euler3DTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(level.fixed, level.moving)
    except RuntimeError:  # the scans do not overlap from this start
        return start
    return found
