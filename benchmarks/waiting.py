"""Share of an epoch that training waits for data."""

import time
from typing import Any

from accelerate import PartialState

from benchmarks.common import FOLDER, print_table
from brats_utils.commands.train import build_loaders, build_state
from brats_utils.config import load_config
from brats_utils.loading import EpochBatches
from brats_utils.model import choose_device
from brats_utils.training import train_step


def main() -> None:
    """Train three epochs of the laptop preset; from the second on, time the wait before each batch."""
    config = load_config("laptop")
    processes = PartialState(cpu=choose_device().type == "cpu")
    loader, *_ = build_loaders(config, FOLDER / "waiting", processes=processes)
    state = build_state(config, num_steps=100)
    rows: list[tuple[Any, ...]] = []
    for epoch in range(3):
        waited, start = 0.0, time.perf_counter()
        assert isinstance(loader.batch_sampler, EpochBatches)
        loader.batch_sampler.epoch = epoch
        batches, before = iter(loader), time.perf_counter()
        for batch in batches:
            waited += time.perf_counter() - before
            train_step(state, batch).item()
            before = time.perf_counter()
        total = time.perf_counter() - start
        rows.append((epoch + 1, f"{total:.2f}", f"{waited:.3f}", f"{100 * waited / total:.1f} %"))
    print_table("Data wait, laptop preset", ["epoch", "seconds", "of it waiting", "share"], rows)
