"""`make check` leaves out the tests marked `slow`. Every other one is watched: it must neither train nor start another Python.

A plugin of pytest, which `conftest.py` registers.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

done: list[str] = []
"""What the test that runs now, or a fixture made for it, has done and a quick one must not."""


def note_training(optimizer: Any, *_: Any) -> None:
    """Note a step that changes weights; torch calls this before each step of whichever optimizer."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if any(weight.grad is not None for weight in weights):
        done.append("trained a network")


def note_process(event: str, arguments: tuple) -> None:
    """Note a process that runs Python, such as a notebook's kernel; Python calls this at everything that it audits."""
    if event == "subprocess.Popen" and Path(str(arguments[0])).name.startswith("python"):
        done.append("started another Python")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes test side by side, let the longest files come first, so that all processes end together."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    minutes: Counter[Path] = Counter()
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None:
            minutes[item.path] += mark.kwargs.get("minutes", 0.1)
    items.sort(key=lambda item: minutes[item.path], reverse=True)


def pytest_collection_finish() -> None:
    """Begin to watch: by now the tests have imported torch, or none of them needs it."""
    if "torch" in sys.modules:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(note_training)
    sys.addaudithook(note_process)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Forget what the test before has done."""
    done.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that has done what a quick one must not, unless it failed anyway."""
    result = yield
    if done and item.get_closest_marker("slow") is None:
        pytest.fail(f"{item.name} {done[0]}, expected the mark `slow`. Write @pytest.mark.slow above it", pytrace=False)
    return result
