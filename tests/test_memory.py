import platform
import subprocess
import sys

import pytest

from brats_utils.memory import keep_freed_memory

COUNT_FAULTS = """
import resource, torch
from brats_utils.memory import keep_freed_memory
{call}
torch.ones(100_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(5_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Allocates 20 MB, 4,883 pages, twenty times after 400 MB were freed."""


def count_faults(call: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS.format(call=call)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")
def test_memory_that_was_freed_is_used_again():
    assert count_faults("assert keep_freed_memory()") < 0.5 * count_faults("")


def test_other_systems_and_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # musl says so
    assert not keep_freed_memory()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not keep_freed_memory()
