import multiprocessing
import signal
from pathlib import Path

import pytest
import survival
import torch

from brats_utils.saving.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow


def run(*args):
    """Train in a process of its own, forked from one that has imported everything and done nothing yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["survival"])
    process = context.Process(target=survival.train, args=args)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the process to fork from starts here and imports
        assert run(folder) == 0
    return folder


@pytest.mark.parametrize(
    ("killed_in", "times"),
    [
        pytest.param("train_step", 1, id="before anything was saved"),
        pytest.param("train_step", 4, id="in mid-epoch"),
        pytest.param("dice_per_region", 4, id="in mid-validation"),
        pytest.param("save_checkpoint", 3, id="in mid-save of best"),
        pytest.param("save_checkpoint", 4, id="in mid-save of last"),
        pytest.param("replace", 5, id="when last is previous already and nothing is last yet"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Going on from:UserWarning")
def test_killed_training_goes_on_and_ends_with_the_same_weights(uninterrupted, tmp_path, killed_in, times):
    assert run(tmp_path, killed_in, times) == -signal.SIGKILL
    assert run(tmp_path) == 0
    for name in ("last.pt", "best.pt"):
        expected, found = load_checkpoint(uninterrupted / name), load_checkpoint(tmp_path / name)
        assert (found.epoch, found.best_dice) == (expected.epoch, expected.best_dice)
        assert all(torch.equal(found.model[key], weight) for key, weight in expected.model.items())
    assert not list(tmp_path.glob(".part-*"))
