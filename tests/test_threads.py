import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import torch
from tiny_training import make_cases, make_state, run

from brats_utils import threads, training
from brats_utils.threads import follow_load


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 cores, of which this process may use 4; a test sets what all programs use of those, in percent, and
    the seconds of this one and its children."""
    load: dict[str, Any] = {"now": 0.0, "own": 0.0, "percent": 0.0, "children": {}}
    monkeypatch.setattr(time, "monotonic", lambda: load["now"])
    monkeypatch.setattr(threads, "_own_seconds", lambda: {0: load["own"], **load["children"]})
    monkeypatch.setattr(psutil, "cpu_percent", lambda *, percpu: [load["percent"]] * 4 + [0.0] * 4)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda process: [0, 1, 2, 3], raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield load
    torch.set_num_threads(before)


def pass_time(load, *, own_cores, busy_cores, seconds=threads.INTERVAL_S):
    load["now"] += seconds
    load["own"] += own_cores * seconds
    load["percent"] = 100 * busy_cores / 4


def test_threads_follow_the_cores_that_others_leave_and_come_back(machine, capsys):
    with follow_load() as look:
        pass_time(machine, own_cores=2, busy_cores=4)
        look()
        assert torch.get_num_threads() == 2
        pass_time(machine, own_cores=2, busy_cores=2)
        look()
        assert torch.get_num_threads() == 4
        pass_time(machine, own_cores=0.5, busy_cores=4)
        look()
    assert torch.get_num_threads() == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Other programs use 2.0 of 4 cores: 2 of 4 threads from here on."
    assert [line.partition(": ")[2][0] for line in lines] == ["2", "4", "1"]


@pytest.mark.parametrize(("own", "busy", "seconds"), [(3.7, 4, 10), (4, 4, 10), (1, 4, 9)])
def test_threads_stay_with_little_other_work_and_between_two_looks(machine, own, busy, seconds, capsys):
    with follow_load() as look:
        pass_time(machine, own_cores=own, busy_cores=busy, seconds=seconds)
        look()
        assert torch.get_num_threads() == 4
    assert not capsys.readouterr().out


def test_a_child_that_has_ended_does_not_pass_for_others(machine, capsys):
    machine["children"] = {7: 300.0}  # what it computed before
    with follow_load() as look:
        machine["children"] = {}
        pass_time(machine, own_cores=4, busy_cores=4)
        look()
        assert torch.get_num_threads() == 4
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_what_a_child_computes_is_not_the_work_of_others():
    before = threads._own_seconds()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        while psutil.Process(child.pid).cpu_times().user <= 0.2:
            time.sleep(0.05)
        own = threads._own_seconds()
        child.kill()
    assert child.pid not in before
    assert own[child.pid] > 0.2


@pytest.mark.slow
def test_training_looks_after_each_step_and_leaves_the_threads_as_they_were(monkeypatch):
    looks, left = [], []

    @contextmanager
    def count():
        yield lambda: looks.append(1)
        left.append(1)

    monkeypatch.setattr(training, "follow_load", count)
    run(make_state(), make_cases(), max_epochs=2)
    assert (len(looks), left) == (4, [1])
