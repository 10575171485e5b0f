"""What `make check` runs neither trains nor starts another Python, as long as tests that do are marked."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = """
import subprocess
import sys

import pytest
import torch


def train():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight])
    (2 * weight).sum().backward()
    optimizer.step()


@pytest.fixture(scope="module")
def trained():
    train()


def test_quick():
    subprocess.run(["true"])


def test_that_trains():
    train()


def test_of_what_a_fixture_trained(trained):
    pass


def test_that_starts_python():
    subprocess.run([sys.executable, "-c", ""])


@pytest.mark.slow
def test_that_is_marked():
    train()
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What pytest says of these tests, by name."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "test_these.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    command = [sys.executable, "-m", "pytest", "-p", "quick", "-p", "no:cacheprovider", "-v", "-rf", folder]
    settings = {"cwd": Path(__file__).parent, "capture_output": True, "text": True}
    return subprocess.run([str(part) for part in command], **settings).stdout


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("test_that_trains", "trained a network"),
        ("test_of_what_a_fixture_trained", "trained a network"),
        ("test_that_starts_python", "started another Python"),
    ],
)
def test_an_unmarked_test_that_trains_or_starts_python_fails(outcome, name, what):
    assert f"::{name} FAILED" in outcome
    assert f"{name} {what}, expected the mark `slow`" in outcome


@pytest.mark.parametrize("name", ["test_quick", "test_that_is_marked"])
def test_others_pass(outcome, name):
    assert f"::{name} PASSED" in outcome
