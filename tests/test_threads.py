import time

import psutil
import pytest
import torch

from brats_utils import threads
from brats_utils.threads import follow_load


@pytest.fixture
def machine(monkeypatch):
    """A machine of 4 cores whose load a test sets: what all programs use in percent, and what this one has in seconds."""
    load = {"now": 0.0, "own": 0.0, "percent": 0.0}
    monkeypatch.setattr(time, "monotonic", lambda: load["now"])
    monkeypatch.setattr(time, "process_time", lambda: load["own"])
    monkeypatch.setattr(psutil, "cpu_percent", lambda: load["percent"])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
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
