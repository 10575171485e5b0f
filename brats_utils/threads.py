"""How many threads compute where the CPU trains: as many as other programs leave it cores."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import torch

from brats_utils.paths import say

INTERVAL_S = 10.0
"""How often the load is measured. Shorter, and a program that starts in between would count as work that stays."""


@contextmanager
def follow_load() -> Iterator[Callable[[], None]]:
    """Give a function to call after each step, which sets the number of threads; in the end it is again what it was.

    The threads of a step wait for each other thousands of times, and for a core that somebody else holds. Two trainings at
    once on two cores take four times as long as one alone with two threads each, and twice as long with one each: see
    docs/performance.md. With another number of threads sums round differently, in the last digits of a loss. The cores
    are those that this process may run on; a container's share of their time is not known.
    """
    most = torch.get_num_threads()
    start = time.monotonic()
    used = _own_seconds()
    psutil.cpu_percent(percpu=True)  # which counts from the call before

    def adjust_threads() -> None:
        nonlocal start, used
        now = time.monotonic()
        if now - start < INTERVAL_S:
            return
        loads = _read_loads()
        before = used
        used = _own_seconds()
        # not the difference of two sums: what a process had that has ended would be missing from the second
        own = sum(seconds - before.get(process, 0) for process, seconds in used.items())
        cores = len(loads)
        others = sum(loads) - own / (now - start)
        start = now
        threads = min(most, max(1, round(cores - others)))
        if threads != torch.get_num_threads():
            say(f"Other programs use {max(0, others):.1f} of {cores} cores: {threads} of {most} threads from here on.")
            torch.set_num_threads(threads)

    try:
        yield adjust_threads
    finally:
        torch.set_num_threads(most)


def _read_loads() -> list[float]:
    """How busy each core that this process may run on has been since the last call, 0 to 1."""
    loads = [percent / 100 for percent in psutil.cpu_percent(percpu=True)]
    allowed: list[int] = getattr(psutil.Process(), "cpu_affinity", list)()  # unknown on macOS
    return [loads[core] for core in allowed if core < len(loads)] or loads


def _own_seconds() -> dict[int, float]:
    """The time on a core that this process has had, and each that it started, such as loaders; by process."""
    seconds = {0: time.process_time()}
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            seconds[child.pid] = sum(child.cpu_times()[:2])
    return seconds
