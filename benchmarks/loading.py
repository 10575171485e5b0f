"""Seconds a training sample, and what a prepared case takes on disk and in memory."""

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import psutil
from torch.utils.data import Dataset

from benchmarks import classic
from benchmarks.common import FOLDER, make_cases, print_table, time_interleaved
from brats_utils.labels import MSD
from brats_utils.loading import build_dataset
from brats_utils.transforms import build_cached_transform, build_train_transform

NUM_MSD = 484


def main() -> None:
    """Compare the classic loader with both caches at 1 mm, after the first epoch."""
    cases, roi_size = make_cases(4, spacing_mm=1.0), (128, 128, 128)
    transforms = {
        "cached": build_cached_transform(1.0, schema=MSD),
        "on_the_fly": build_train_transform(roi_size, schema=MSD, appearance="strong"),
    }
    shutil.rmtree(FOLDER / "cache", ignore_errors=True)
    disk = build_dataset(cases, **transforms, cache="disk", cache_dir=FOLDER / "cache")
    samples = {
        "classic, 224x224x144": iter_samples(classic.build_loader(cases, 1.0, classic.ROI_SIZE_MM, schema=MSD).dataset),
        "classic, 128x128x128": iter_samples(classic.build_loader(cases, 1.0, roi_size, schema=MSD).dataset),
        "ours in memory, 128x128x128": iter_samples(build_dataset(cases, **transforms, cache="ram")),
        "ours on disk, 128x128x128": iter_samples(disk),
    }
    turns = {name: lambda source=source: list(itertools.islice(source, len(cases))) for name, source in samples.items()}
    seconds = {name: value / len(cases) for name, value in time_interleaved(turns, repeats=5).items()}
    base = seconds["classic, 128x128x128"]
    print_table(
        "Input at 1 mm, after the first epoch",
        ["recipe, patch", "seconds a sample", "classic / this"],
        [(name, f"{value:.3f}", f"{base / value:.1f}") for name, value in seconds.items()],
    )
    sizes = [path.stat().st_size for path in (FOLDER / "cache").iterdir()]
    mean = sum(sizes) / len(sizes)
    print(
        f"A prepared case takes {mean / 1e6:.1f} MB (mean of {len(sizes)}); {NUM_MSD} would take {NUM_MSD * mean / 1e9:.1f} GB."
    )
    process = psutil.Process()
    before = process.memory_info().rss
    turns["ours on disk, 128x128x128"]()
    print(f"Memory grown by another epoch from disk: {(process.memory_info().rss - before) / 1e6:.0f} MB.")


def iter_samples(dataset: Dataset[Any]) -> Iterator[Any]:
    """Go through a data set again and again; ours is told the epoch."""
    for visit in itertools.count():
        epoch, index = divmod(visit, len(dataset))  # type: ignore[arg-type]
        yield dataset[(epoch, index)] if hasattr(dataset, "prepared") else dataset[index]
