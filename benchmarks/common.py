"""What all benchmarks need: data, a stopwatch and a line of a table."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable
from datetime import date

import torch

from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.paths import REPOSITORY
from brats_utils.phantom.dataset import generate_dataset

FOLDER = REPOSITORY / "runs" / "bench"


def describe_machine() -> str:
    """Name processor, cores, torch and date: a figure means nothing without them."""
    cpu = next(
        (line.split(":")[1].strip() for line in _read_cpuinfo() if line.startswith("model name")), platform.processor()
    )
    bf16 = "bf16 units" if torch.cpu._is_amx_tile_supported() else "no AMX"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{date.today()}, {cpu} ({bf16}), {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


def make_cases(num_cases: int, *, spacing_mm: float) -> list[Case]:
    """Generate phantoms once and list them."""
    folder = FOLDER / f"phantom-{spacing_mm:g}mm-{num_cases}"
    return find_cases(generate_dataset(folder, num_training=num_cases, spacing_mm=spacing_mm, seed=0))


def time_interleaved(contenders: dict[str, Callable[[], object]], *, repeats: int, warmup: int = 1) -> dict[str, float]:
    """Time each contender in turn, again and again, so that a busy moment of the machine hits all.

    Returns:
        Median seconds of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(warmup + repeats):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if repeat >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table, ready for docs/performance.md."""
    names = list(header)
    print(f"\n### {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(flush=True)


def _read_cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo") as file:
            return file.readlines()
    except OSError:
        return []
