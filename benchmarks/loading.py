"""Seconds to read a case with all checks, seconds a training sample, and what a prepared case takes on disk and in memory."""

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import psutil
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from torch.utils.data import Dataset

from benchmarks import classic
from benchmarks.common import FOLDER, make_cases, print_table, time_interleaved
from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD
from brats_utils.loading import build_dataset
from brats_utils.transforms import IMAGE_LABEL, build_cached_transform, build_preprocessing, build_train_transform

NUM_MSD = 484


def main() -> None:
    """Compare the classic loader with both caches at 1 mm, after the first epoch."""
    cases, roi_size = make_cases(4, spacing_mm=1.0), (128, 128, 128)
    transforms = {
        "cached": build_cached_transform(1.0),
        "on_the_fly": build_train_transform(roi_size, schema=MSD, appearance="strong"),
    }
    time_reading(cases)
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
        ["recipe, patch", "seconds per sample", "classic / this"],
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


def time_reading(cases: list[Case]) -> None:
    """Compare MONAI's reader, which checks nothing, with ours and all its checks, both from file to z-scored tensors."""
    unchecked = Compose(
        [
            LoadImaged(IMAGE_LABEL, image_only=True),
            EnsureChannelFirstd(IMAGE_LABEL),
            *build_preprocessing(1.0).transforms,
        ]
    )
    checked = build_preprocessing(1.0)
    turns = {
        "MONAI's LoadImaged, no checks": lambda: [unchecked({"image": c.images[0], "label": c.label}) for c in cases],
        "read_case, all checks": lambda: [checked(read_case(case).tensors) for case in cases],
    }
    seconds = {name: value / len(cases) for name, value in time_interleaved(turns, repeats=5).items()}
    base = seconds["MONAI's LoadImaged, no checks"]
    print_table(
        "From file to z-scored tensors at 1 mm, a case",
        ["reader", "seconds", "this / MONAI's"],
        [(name, f"{value:.3f}", f"{value / base:.2f}") for name, value in seconds.items()],
    )


def iter_samples(dataset: Dataset[Any]) -> Iterator[Any]:
    """Go through a data set again and again; ours is told the epoch."""
    for visit in itertools.count():
        epoch, index = divmod(visit, len(dataset))  # type: ignore[arg-type]
        yield dataset[(epoch, index)] if hasattr(dataset, "prepared") else dataset[index]
