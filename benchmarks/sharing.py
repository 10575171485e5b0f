"""Seconds a step of the laptop preset alone and beside another training, with threads that follow the load and without."""

import subprocess
import sys
import time
from contextlib import nullcontext

import torch

from benchmarks.common import print_table
from brats_utils.commands.train import build_state
from brats_utils.config import load_config
from brats_utils.threads import INTERVAL_S, follow_load
from brats_utils.training import train_step

SECONDS = 5 * INTERVAL_S
SETTLED_S = 2.5 * INTERVAL_S
"""What comes before is not counted: both have to start, and to measure the load."""


def main() -> None:
    """Start one training, then two at once, each in a process of its own."""
    rows = []
    for name in ("as many as cores", "follow the load"):
        seconds = [start(count, name) for count in (1, 2)]
        rows.append((name, *(f"{mean:.2f}" for mean in seconds), f"{seconds[1] / seconds[0]:.1f}"))
    print_table("Two trainings at once, seconds per step", ("threads", "alone", "two at once", "two / alone"), rows)


def start(count: int, name: str) -> float:
    """Run as many trainings at once; gives the mean of their seconds per step."""
    command = [sys.executable, "-m", "benchmarks.sharing", name]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(program.communicate()[0].split()[-1]) for program in programs) / count


def measure(name: str) -> float:
    """Train on random patches; gives the mean seconds per step once the number of threads has settled."""
    config = load_config("laptop")
    state = build_state(config, num_steps=10**6)
    image = torch.randn(config.batch_size, 4, *config.roi_size)
    batch = {"image": image, "label": torch.rand_like(image[:, :3]) > 0.8}
    begin, steps = time.monotonic(), 0
    with follow_load() if name == "follow the load" else nullcontext(lambda: None) as adjust_threads:
        while (now := time.monotonic()) < begin + SECONDS:
            if steps == 0 and now > begin + SETTLED_S:
                settled = now
            train_step(state, batch)
            steps += now > begin + SETTLED_S
            adjust_threads()
    return (time.monotonic() - settled) / steps


if __name__ == "__main__":
    print(measure(sys.argv[1]))
