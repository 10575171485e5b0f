"""How lifelike the phantom is: the statistics of docs/phantom.md, measured on phantoms and set beside those of real scans."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from scipy import ndimage

from benchmarks.common import print_table
from brats_utils.labels import CHANNELS, MSD
from brats_utils.paths import REPOSITORY
from brats_utils.phantom.dataset import PhantomCase, generate_case

FLAIR, T1W, T1GD, T2W = range(4)
PARTS = {"edema": MSD.edema, "core": MSD.necrotic, "enhancing": MSD.enhancing}


@dataclass(frozen=True)
class Range:
    """A statistic of real scans.

    Attributes:
        low: smallest of the cases.
        median: of the cases.
        high: largest of the cases.
    """

    low: float
    median: float
    high: float


def _around(median: float, *, by: float) -> Range:
    """For a statistic whose range is not known: what may be taken for chance around its median."""
    return Range(median - by, median, median + by)


def _of_channels(name: str, *ranges: Range) -> dict[str, Range]:
    return {f"{name}, {channel}": values for channel, values in zip(CHANNELS, ranges, strict=True)}


REAL: dict[str, Range] = {
    **_of_channels("contrast of edema", Range(1.2, 2.66, 4.7), Range(-0.4, -0.08, 1.0), Range(-0.9, -0.03, 1.3),
                   Range(0.4, 1.14, 2.0)),
    **_of_channels("contrast of core", Range(0.3, 3.0, 4.3), Range(-1.7, -0.83, 0.7), Range(-2.1, -0.68, 2.2),
                   Range(0.4, 1.74, 5.8)),
    **_of_channels("contrast of enhancing", Range(1.2, 2.8, 5.6), Range(-0.9, 0.12, 1.7), Range(1.4, 2.07, 4.0),
                   Range(0.2, 1.42, 2.6)),
    **_of_channels("texture of edema", *(_around(sd, by=0.35) for sd in (1.1, 0.6, 0.7, 0.8))),
    **_of_channels("texture of core", *(_around(sd, by=0.35) for sd in (1.0, 0.6, 0.6, 0.7))),
    **_of_channels("texture of enhancing", *(_around(sd, by=0.35) for sd in (1.0, 0.6, 1.2, 0.6))),
    **_of_channels("z of normal brain, SD", *(_around(sd, by=0.25) for sd in (0.72, 0.86, 0.83, 0.87))),
    **_of_channels("z, percentile 1", *(_around(z, by=0.8) for z in (-2.8, -2.9, -2.9, -1.6))),
    **_of_channels("z, percentile 99", *(_around(z, by=0.8) for z in (2.7, 1.7, 2.3, 3.7))),
    "correlation FLAIR-T1w": _around(0.44, by=0.25),
    "correlation T1w-T1gd": _around(0.56, by=0.25),
    "correlation T1w-T2w": _around(-0.45, by=0.25),
    "correlation FLAIR-T2w": _around(-0.16, by=0.35),
    "brain, mL": Range(1246, 1430, 1728),
    "edema, mL": Range(14, 65, 148),
    "core, mL": Range(0.06, 20, 70),
    "enhancing, mL": Range(2.6, 25, 64),
    "sphericity of WT": _around(0.67, by=0.15),
    "sphericity of TC": _around(0.82, by=0.15),
    "sphericity of ET": _around(0.63, by=0.2),
    "edema to core, median mm": _around(5, by=4),
    "edema to core, percentile 95 mm": _around(19, by=8),
}  # fmt: skip
"""Of 16 BraTS and TCGA cases at 1 mm. Contrasts and textures in SD of normal brain; z is the z-score over the scan.

Where only a median was recorded, the range is ours, for the test that watches over the phantom."""


def measure(case: PhantomCase) -> dict[str, float]:
    """Measure every statistic of `REAL` that the case has: nothing of a part that is missing or under 1 mL."""
    spacing_mm = float(case.affine[0, 0])
    image, label = case.image.astype(np.float64), case.label
    brain = image[..., T1W] > 0
    normal, voxel_ml = brain & (label == 0), spacing_mm**3 / 1000
    parts = {name: label == value for name, value in PARTS.items()}
    found = {"brain, mL": brain.sum() * voxel_ml}
    found |= {f"{name}, mL": mask.sum() * voxel_ml for name, mask in parts.items() if mask.any()}
    parts = {name: mask for name, mask in parts.items() if mask.sum() * voxel_ml >= 1}
    for channel, name in enumerate(CHANNELS):
        values = image[..., channel]
        scanned = values != 0
        mean, sd = values[normal & scanned].mean(), values[normal & scanned].std()
        z = (values[scanned] - values[scanned].mean()) / values[scanned].std()
        found[f"z of normal brain, SD, {name}"] = sd / values[scanned].std()
        for percentile in (1, 99):
            found[f"z, percentile {percentile}, {name}"] = float(np.percentile(z, percentile))
        for part, mask in parts.items():
            inside = values[mask & scanned]
            found[f"contrast of {part}, {name}"] = (inside.mean() - mean) / sd
            found[f"texture of {part}, {name}"] = inside.std() / sd
    for a, b in ((FLAIR, T1W), (T1W, T1GD), (T1W, T2W), (FLAIR, T2W)):
        both = normal & (image[..., a] > 0) & (image[..., b] > 0)
        found[f"correlation {CHANNELS[a]}-{CHANNELS[b]}"] = np.corrcoef(image[..., a][both], image[..., b][both])[0, 1]
    core = label > MSD.edema
    for name, mask in {"WT": label > 0, "TC": core, "ET": label == MSD.enhancing}.items():
        if mask.sum() * voxel_ml >= 1:
            found[f"sphericity of {name}"] = _sphericity(mask, spacing_mm)
    away = ndimage.distance_transform_edt(~core)[label == MSD.edema] * spacing_mm
    found["edema to core, median mm"], found["edema to core, percentile 95 mm"] = np.percentile(away, (50, 95))
    return {name: float(value) for name, value in found.items()}


def _sphericity(mask: np.ndarray, spacing_mm: float) -> float:
    """Surface of a sphere of the same volume over the surface, which is the total variation of the smoothed mask."""
    smooth = ndimage.gaussian_filter(np.pad(mask, 3).astype(np.float32), 1 / spacing_mm)
    slope = np.sqrt(sum(np.gradient(smooth, spacing_mm, axis=axis) ** 2 for axis in range(3)))
    return float(np.pi ** (1 / 3) * (6 * mask.sum() * spacing_mm**3) ** (2 / 3) / (slope.sum() * spacing_mm**3))


def collect(measured: Sequence[dict[str, float]]) -> dict[str, np.ndarray]:
    """Sort by statistic, in the order of `REAL`."""
    return {name: np.array([case[name] for case in measured if name in case]) for name in REAL}


def plot(found: dict[str, np.ndarray]) -> plt.Figure:
    """Draw each statistic on a scale on which real scans reach from 0 to 1."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 8), layout="constrained")
    names = list(REAL)
    half = (len(names) + 1) // 2
    for ax, some in zip(axes, (names[:half], names[half:]), strict=True):
        for row, name in enumerate(some):
            real = REAL[name]
            place = lambda value, real=real: (np.asarray(value) - real.low) / (real.high - real.low)  # noqa: E731
            ax.barh(row, 1, height=0.75, color="0.87")
            ax.plot(2 * [place(real.median)], (row - 0.375, row + 0.375), color="0.35", linewidth=2)
            ax.plot(place(np.percentile(found[name], (10, 90))), (row, row), color="#0072B2", linewidth=2)
            ax.plot(place(np.median(found[name])), row, "o", color="#0072B2", markersize=6)
        ax.set(yticks=range(len(some)), yticklabels=some, xlim=(-0.6, 1.6), xticks=(0, 1))
        ax.set_xticklabels(("least real", "largest real"))
        ax.invert_yaxis()
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    figure.suptitle(
        "Grey: real scans, with their median. Blue: phantoms, median and the middle 80 %.", x=0.02, ha="left"
    )
    return figure


def _rows(found: dict[str, np.ndarray]) -> Iterator[tuple[str, str, str]]:
    for name, values in found.items():
        real, (low, median, high) = REAL[name], np.percentile(values, (0, 50, 100))
        yield name, f"{real.median:g} [{real.low:.3g}, {real.high:.3g}]", f"{median:.2f} [{low:.2f}, {high:.2f}]"


def main(num_cases: int = 48, spacing_mm: float = 2.0) -> None:
    """Measure, print and draw; every third of the phantoms is a tumour that does not enhance."""
    start = time.perf_counter()
    jobs = (delayed(generate_case)(20, case_idx, spacing_mm=spacing_mm) for case_idx in range(num_cases))
    cases = Parallel(n_jobs=-1)(jobs)
    print(f"Generating takes {(time.perf_counter() - start) / num_cases:.2f} s a case at {spacing_mm:g} mm.")
    found = collect([measure(case) for case in cases])
    print_table(f"{num_cases} phantoms beside 16 real cases", ("statistic", "real", "phantom"), _rows(found))
    plot(found).savefig(REPOSITORY / "docs" / "images" / "phantom_statistics.png", dpi=75)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
