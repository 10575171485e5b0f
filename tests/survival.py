"""What `test_survival.py` runs in processes of its own: a small training that is killed where it hurts."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from tiny_training import ROI, make_cases, make_loaders, make_state

from brats_utils import training
from brats_utils.saving import resume
from brats_utils.saving.resume import LAST, PREVIOUS, load_progress, save_progress
from brats_utils.training import train_epochs


def die(*_: Any, **__: Any) -> None:
    """End as a power cut would: nothing is flushed, no cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_called(name: str, *, times: int) -> None:
    """Let a function that `training` or `resume` calls, or one of `os`, kill the process at its n-th call, half done where it writes a file."""
    module = next((module for module in (training, resume) if hasattr(module, name)), os)
    inner, calls = getattr(module, name), iter(range(1, 100))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == times:
            if name == "save_checkpoint":
                args[0].with_name(f".part-{args[0].name}").write_bytes(b"half a file")
            die()
        return inner(*args, **kwargs)

    setattr(module, name, wrapped)


def train(folder: Path, killed_in: str = "", times: int = 0) -> None:
    """Train for three epochs of two batches, from the last checkpoint if there is one."""
    torch.set_num_threads(1)
    if killed_in:
        die_when_called(killed_in, times=times)
    state, cases = make_state(num_steps=6), make_cases()
    if (folder / LAST).exists() or (folder / PREVIOUS).exists():
        state.restore(load_progress(folder, config={}))
    settings = {"max_epochs": 3, "validation_intervals": 1, "roi_size": ROI, "spacing_mm": 4.0, "seed": 0}
    for result in train_epochs(state, *make_loaders(cases), **settings):
        save_progress(state, folder, config={}, run_id="", is_best=result.is_best)
