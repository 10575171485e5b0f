"""How many threads compute where the CPU trains: as many as other programs leave it cores."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import torch

from brats_utils.paths import say

INTERVAL_S = 10.0
"""How often to look. Shorter, and a program that starts in between would count as work that stays."""


@contextmanager
def follow_load() -> Iterator[Callable[[], None]]:
    """Give a function to call after each step, which sets the number of threads; in the end it is again what it was.

    The threads of a step wait for each other thousands of times, and for a core that somebody else holds. Two trainings at
    once on two cores take four times as long as one alone with two threads each, and twice as long with one each: see
    docs/performance.md. With another number of threads sums round differently, in the last digits of a loss. All cores of
    the machine are taken for ours: nothing is known of the share that a container or a job may use.
    """
    most, start, used = torch.get_num_threads(), time.monotonic(), _own_seconds()
    psutil.cpu_percent()  # which counts from the call before

    def look() -> None:
        nonlocal start, used
        now = time.monotonic()
        if now - start < INTERVAL_S:
            return
        cores, own_seconds = psutil.cpu_count() or 1, _own_seconds()
        others = psutil.cpu_percent() / 100 * cores - (own_seconds - used) / (now - start)
        start, used = now, own_seconds
        threads = min(most, max(1, round(cores - others)))
        if threads != torch.get_num_threads():
            say(f"Other programs use {max(0, others):.1f} of {cores} cores: {threads} of {most} threads from here on.")
            torch.set_num_threads(threads)

    try:
        yield look
    finally:
        torch.set_num_threads(most)


def _own_seconds() -> float:
    """The time on a core that this process has had, and those that it started, such as loaders."""
    seconds = time.process_time()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            seconds += sum(child.cpu_times()[:2])
    return seconds
