"""How cost grows with the number of cases."""

import shutil
import time
from typing import Any

import numpy as np
from accelerate import PartialState

from benchmarks.common import FOLDER, print_table
from brats_utils.cases.layouts import find_cases
from brats_utils.commands.train import build_state
from brats_utils.config import load_config
from brats_utils.labels import MSD
from brats_utils.loading import build_dataset, build_train_loader
from brats_utils.model import choose_device
from brats_utils.phantom.dataset import generate_dataset
from brats_utils.training import train_epoch
from brats_utils.transforms import build_cached_transform, build_train_transform

COUNTS = (10, 20, 40, 80)


def main() -> None:
    """Generate, prepare and train on 10 to 80 phantoms of the laptop preset; fit seconds per case."""
    config = load_config("laptop")
    PartialState(cpu=choose_device().type == "cpu")
    rows: list[list[float]] = []
    for count in COUNTS:
        folder = FOLDER / "scaling" / str(count)
        shutil.rmtree(folder, ignore_errors=True)
        times = [time.perf_counter()]
        generate_dataset(folder / "data", num_training=count, spacing_mm=config.spacing_mm, seed=0)
        times.append(time.perf_counter())
        dataset = build_dataset(
            find_cases(folder / "data"),
            cached=build_cached_transform(config.spacing_mm),
            on_the_fly=build_train_transform(config.roi_size, schema=MSD, appearance=config.appearance),
            cache="disk",
            cache_dir=folder / "cache",
        )
        times.append(time.perf_counter())
        loader = build_train_loader(dataset, batch_size=2, num_workers=0, seed=0)
        train_epoch(build_state(config, num_steps=count), loader, seed=0)
        times.append(time.perf_counter())
        size = sum(path.stat().st_size for path in (folder / "cache").iterdir()) / 1e6
        rows.append([*np.diff(times), size])
        shutil.rmtree(folder)
    slopes = [np.polyfit(COUNTS, column, 1)[0] for column in zip(*rows, strict=True)]
    table: list[tuple[Any, ...]] = [
        (count, *(f"{value:.1f}" for value in row)) for count, row in zip(COUNTS, rows, strict=True)
    ]
    table.append(("a case more", *(f"{slope:.2f}" for slope in slopes)))
    print_table(
        "Cost by number of cases, 2 mm", ["cases", "generate, s", "prepare, s", "one epoch, s", "cache, MB"], table
    )
