import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_log import read_history, read_records, run_folder

pytestmark = pytest.mark.slow

ONE = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def train(command, data, out_dir, *, batch_size, launcher=""):
    script = Path(__file__).with_name("together.py")
    subprocess.run(
        [*command, script, data, out_dir, str(batch_size), launcher],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
    )
    return json.loads((out_dir / "report.json").read_text())


def read_losses(out_dir):
    rows = read_history(read_records(run_folder(out_dir)))
    return [row["batch/train_loss"] for row in rows if "batch/train_loss" in row]


@pytest.fixture(scope="module")
def alone(phantom_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("alone")
    return out_dir, train(ONE, phantom_dir, out_dir, batch_size=2)


@pytest.fixture(scope="module")
def together(phantom_dir, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("together")
    return out_dir, train(TORCHRUN, phantom_dir, out_dir, batch_size=1)


def test_torchrun_starts_as_many_processes_as_asked_for(together):
    assert together[1]["world_size"] == 2
    assert together[1]["ranks"] == [0, 1]


def test_two_processes_have_the_loss_curve_of_one_with_the_same_effective_batch(alone, together):
    losses = read_losses(alone[0])
    assert len(losses) == 4
    assert read_losses(together[0]) == pytest.approx(losses, rel=1e-3)


def test_two_processes_have_the_validation_dice_of_one(alone, together):
    assert together[1]["best_dice"] == pytest.approx(alone[1]["best_dice"], abs=2e-3)


def test_only_the_first_process_writes(together):
    assert len(list((together[0] / "wandb").glob("offline-run-*"))) == 1
    assert {path.name for path in (together[0] / "checkpoints").glob("*.pt")} == {"last.pt", "previous.pt", "best.pt"}


def test_notebook_launcher_starts_the_same_training(phantom_dir, tmp_path, together):
    report = train(ONE, phantom_dir, tmp_path, batch_size=1, launcher="notebook_launcher")
    assert report["world_size"] == 2
    assert read_losses(tmp_path) == pytest.approx(read_losses(together[0]), rel=1e-3)
