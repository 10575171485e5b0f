"""W&B with an account: the real client against a server of our own on the loopback interface."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
from wandb_run import CONFIG, start, start_online, sync, train

from brats_utils.artifacts import fetch_checkpoint, log_dataset
from brats_utils.labels import REGIONS
from brats_utils.report.page import ReportCase
from brats_utils.saving.checkpoints import load_checkpoint
from brats_utils.saving.resume import TrainingError
from brats_utils.tables import DATA_TABLE, PREDICTION_TABLE, build_data_table, build_prediction_table
from brats_utils.tracking import alert_divergence, finish_run, resolve_mode

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "phantom"
    folder.mkdir()
    (folder / "scan.nii.gz").write_bytes(os.urandom(1000))
    (tmp_path / "split.json").write_text("{}")
    return folder


@pytest.fixture
def case():
    truth, prediction = torch.zeros(2, 3, 12, 10, 9, dtype=torch.bool)
    truth[1, 2:8, 2:8, 3:6] = truth[0, 3:6, 3:6, 3:5] = prediction[1, 2:8, 2:7, 3:6] = True
    return "val", 0, ReportCase("zero", torch.randn(4, 12, 10, 9), truth, prediction, (1.0, 1.0, 1.0))


def check_table(server, label, *, num_pictures):
    """Check that a table's artifact holds every picture and mask that it names."""
    artifact = server.find(label)
    files, manifest = server.read_files(artifact), server.read_manifest(artifact)
    assert set(files) == set(manifest)
    (table,) = [json.loads(data) for name, data in files.items() if name.endswith(".table.json")]
    pictures = [cell for row in table["data"] for cell in row[3:]]
    assert len(pictures) == num_pictures
    assert {picture["path"] for picture in pictures} < set(files)
    assert {mask["path"] for picture in pictures for mask in picture["masks"].values()} < set(files)


def test_the_whole_tutorial_online(server, tmp_path, dataset, state, case, capsys):
    assert resolve_mode() == "online"

    run = start_online(tmp_path, "dataset")
    log_dataset(run, dataset, split_path=tmp_path / "split.json")
    run.log({DATA_TABLE: build_data_table([case], margin=0)})
    finish_run(run)
    check_table(server, f"run-{run.id}-{DATA_TABLE}", num_pictures=3 * 4)

    training = start_online(tmp_path)
    log_dataset(training, dataset, split_path=tmp_path / "split.json")
    train(training, state, tmp_path / "checkpoints", epochs=(1, 2))
    finish_run(training)
    stored = server.runs[training.id]
    assert stored.used == ["phantom:v0"]
    assert [row["validation/mean_dice"] for row in stored.history] == pytest.approx([0.5, 0.4])
    assert stored.summary["best/epoch"] == 1
    assert stored.summary["validation/mean_dice"]["last"] == pytest.approx(0.4)
    best = server.find(f"{training.id}-checkpoint:best")
    assert best.aliases == {"epoch_1", "best"}
    assert json.loads(best.metadata) == {"epoch": 1, "val_dice": 0.5}
    assert server.find(f"{training.id}-checkpoint:latest").aliases == {"epoch_2", "latest"}

    inference = start_online(tmp_path, "inference")
    log_dataset(inference, dataset, split_path=tmp_path / "split.json")
    local = tmp_path / "checkpoints" / "best.pt"
    path = fetch_checkpoint(inference, "", local_path=local, root=tmp_path / "artifacts")
    assert path.is_relative_to(tmp_path / "artifacts")
    assert load_checkpoint(path).epoch == 1
    inference.log({PREDICTION_TABLE: build_prediction_table([case], margin=0)})
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "case.nii.gz").write_bytes(b"labels")
    inference.log_artifact(tmp_path / "predictions", name=f"{inference.id}-predictions", type="predictions")
    finish_run(inference)
    stored = server.runs[inference.id]
    assert stored.used == ["phantom:v0", f"{training.id}-checkpoint:v0"]
    assert f"{inference.id}-predictions:v0" in stored.logged
    (table,) = [label for label in stored.logged if "Tumor-Segmentation-Data" in label]
    check_table(server, table, num_pictures=3 * 4 * len(REGIONS))

    expected = {"UpsertBucket", "CreateArtifact", "CommitArtifact", "UseArtifact", "ArtifactMembershipByName"}
    assert expected < set(server.operations)
    with capsys.disabled():
        print("\nThe client asked:", *dict.fromkeys(server.operations))


def test_data_with_odd_names_can_be_had_again_from_its_references(server, tmp_path):
    data = tmp_path / "run #1 50% é?"
    data.mkdir()
    (data / "scan #1?.nii.gz").write_bytes(os.urandom(1000))
    (tmp_path / "split.json").write_text("{}")
    first = start_online(tmp_path, "dataset")
    log_dataset(first, data, split_path=tmp_path / "split.json")
    finish_run(first)
    run = start_online(tmp_path)
    log_dataset(run, data, split_path=tmp_path / "split.json")
    entry = run.use_artifact("run-1-50-:latest").get_entry("scan #1?.nii.gz")
    again = Path(entry.download(root=str(tmp_path / "again")))
    assert again.read_bytes() == (data / "scan #1?.nii.gz").read_bytes()
    finish_run(run)
    assert "run-1-50-:v0" in server.runs[run.id].used


def test_finished_run_tells_where_it_came_from(server, tmp_path, state):
    run = start_online(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    stored = server.runs[run.id]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert stored.commit == commit.stdout.strip()
    assert {name: stored.config[name]["value"] for name in CONFIG} == CONFIG
    assert stored.exit_code == 0
    assert b"torch==" in server.blobs[f"run/{run.id}/requirements.txt"]
    assert "python" in json.loads(server.blobs[f"run/{run.id}/wandb-metadata.json"])


def test_resumed_run_goes_on_where_it_stopped(server, tmp_path, state):
    run = start_online(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    again = start_online(tmp_path, run_id=load_checkpoint(tmp_path / "last.pt").run_id)
    train(again, state, tmp_path, epochs=(2,))
    finish_run(again)
    stored = server.runs[run.id]
    assert [row["_step"] for row in stored.history] == [0, 1]
    assert stored.summary["best/mean_dice"] == pytest.approx(0.5)
    assert server.find(f"{run.id}-checkpoint:best").version == 0


def test_diverged_training_alerts_and_ends_as_failed(server, tmp_path):
    run = start_online(tmp_path)
    with pytest.raises(TrainingError), alert_divergence(run):
        raise TrainingError("Epoch 3, batch 1: the loss is nan.")
    assert server.runs[run.id].alerts == ["ERROR Training diverged: Epoch 3, batch 1: the loss is nan."]
    assert server.runs[run.id].exit_code == 1


def test_project_and_entity_of_the_environment_hold_for_runs_and_artifacts(server, tmp_path, state, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    training = start_online(tmp_path)
    train(training, state, tmp_path, epochs=(1,))
    finish_run(training)
    stored = server.runs[training.id]
    assert (stored.entity, stored.project) == ("team", "theirs")
    best = server.find(f"{training.id}-checkpoint:best")
    assert (best.entity, best.project) == ("team", "theirs")
    inference = start_online(tmp_path, "inference")
    path = fetch_checkpoint(inference, "", local_path=tmp_path / "best.pt", root=tmp_path / "artifacts")
    assert path.is_relative_to(tmp_path / "artifacts")
    finish_run(inference)
    assert server.runs[inference.id].used == [f"{training.id}-checkpoint:v0"]


def test_in_a_sweep_the_training_alone_is_the_trial(server, tmp_path, monkeypatch):
    for name, value in {"RUN_ID": "trial1", "SWEEP_ID": "sweep1", "PROJECT": "searched"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    ids = {}
    for name, job_type in (("before", "dataset"), ("trial", "train"), ("after", "inference"), ("second", "train")):
        run = start_online(tmp_path, job_type)
        ids[name] = run.id
        finish_run(run)
    assert ids["trial"] == "trial1"
    assert len({*ids.values()}) == 4
    assert {name: server.runs[run_id].sweep for name, run_id in ids.items() if server.runs[run_id].sweep} == {
        "trial": "sweep1"
    }
    assert {server.runs[run_id].project for run_id in ids.values()} == {"searched"}


def test_offline_run_is_synced_complete_with_its_resumption(server, tmp_path, state, case, capsys):
    run = start(tmp_path)
    run.log({DATA_TABLE: build_data_table([case], margin=0)})
    train(run, state, tmp_path, epochs=(1, 2))
    finish_run(run)
    time.sleep(1)  # W&B names folders by the second
    again = start(tmp_path, run_id=run.id)
    train(again, state, tmp_path, epochs=(3,))
    finish_run(again)
    sync(capsys.readouterr().out.splitlines()[-1])
    stored = server.runs[run.id]
    steps = [row["validation/validation_step"] for row in stored.history if "validation/validation_step" in row]
    assert steps == [1, 2, 3]
    assert stored.summary["validation/mean_dice"]["last"] == pytest.approx(0.3)
    assert server.find(f"{run.id}-checkpoint:best").version == 0
    assert server.read_files(server.find(f"{run.id}-checkpoint:epoch_3"))
    check_table(server, f"run-{run.id}-{DATA_TABLE}", num_pictures=3 * 4)
