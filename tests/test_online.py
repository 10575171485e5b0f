"""W&B with an account: the real client against a server of our own on the loopback interface."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import wandb
from wandb_server import WandbServer

from brats_utils.labels import REGIONS
from brats_utils.model import build_model, build_optimizer, build_schedule
from brats_utils.report.page import ReportCase
from brats_utils.saving.checkpoints import load_checkpoint
from brats_utils.saving.resume import TrainingError, TrainingState, save_progress
from brats_utils.tables import DATA_TABLE, PREDICTION_TABLE, build_data_table, build_prediction_table
from brats_utils.tracking import (
    alert_divergence,
    fetch_checkpoint,
    finish_run,
    log_checkpoint,
    log_dataset,
    resolve_mode,
    start_run,
)

KEY = 20 * "b2"
CONFIG = {"init_filters": 8, "dropout_prob": 0.0, "seed": 0}


@pytest.fixture
def server(monkeypatch):
    server = WandbServer(KEY)
    settings = {"API_KEY": KEY, "BASE_URL": server.url, "SILENT": "true", "HTTP_TIMEOUT": "1"}
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):  # do not wait half a minute between attempts
        settings |= {f"X_{client}_RETRY_WAIT_MIN_SECONDS": "0.1", f"X_{client}_RETRY_WAIT_MAX_SECONDS": "0.5"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_FINISH_TIMEOUT", raising=False)
    wandb.teardown()
    yield server
    server.connected = True
    if wandb.run is not None:
        wandb.run.finish()
    wandb.teardown()
    server.stop()
    assert not server.unknown


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "phantom"
    folder.mkdir()
    (folder / "scan.nii.gz").write_bytes(os.urandom(1000))
    (tmp_path / "split.json").write_text("{}")
    return folder


@pytest.fixture
def state():
    torch.manual_seed(0)
    model = build_model(init_filters=8, dropout_prob=0.0)
    optimizer = build_optimizer(model, name="adamw", learning_rate=1e-3, weight_decay=0.0)
    schedule = build_schedule(optimizer, name="cosine", num_steps=10)
    return TrainingState(model, torch.nn.MSELoss(), optimizer, schedule, torch.float32)


@pytest.fixture
def case():
    truth, prediction = torch.zeros(2, 3, 12, 10, 9, dtype=torch.bool)
    truth[1, 2:8, 2:8, 3:6] = truth[0, 3:6, 3:6, 3:5] = prediction[1, 2:8, 2:7, 3:6] = True
    return "val", 0, ReportCase("zero", torch.randn(4, 12, 10, 9), truth, prediction, (1.0, 1.0, 1.0))


def start(tmp_path, job_type="train", *, mode="online", **settings):
    return start_run(job_type=job_type, mode=mode, output_dir=tmp_path / "out", config=CONFIG, **settings)


def train(run, state, folder, *, epochs):
    """Log epochs and their checkpoints as notebook 03 does; the Dice is .5, then .4, then .3."""
    for epoch in epochs:
        state.epoch, state.mean_dice = epoch, 0.6 - epoch / 10
        is_best = epoch == 1
        run.log({"validation/validation_step": epoch, "validation/mean_dice": state.mean_dice})
        path = save_progress(state, folder, config=CONFIG, run_id=run.id, is_best=is_best)
        log_checkpoint(run, path, epoch=epoch, mean_dice=state.mean_dice, is_best=is_best)


def sync(line):
    """Run the line that `finish_run` printed, in a shell that knows nothing of this process's folders."""
    folders = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in folders}
    arguments = line.partition("wandb sync ")[2].split()
    command = [sys.executable, "-m", "wandb", "sync", *arguments]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)


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
    mode = resolve_mode()
    assert mode == "online"

    run = start(tmp_path, "dataset", mode=mode)
    log_dataset(run, dataset, split_path=tmp_path / "split.json")
    run.log({DATA_TABLE: build_data_table([case], margin=0)})
    finish_run(run)
    check_table(server, f"run-{run.id}-{DATA_TABLE}", num_pictures=3 * 4)

    training = start(tmp_path, mode=mode)
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

    inference = start(tmp_path, "inference", mode=mode)
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
    first = start(tmp_path, "dataset")
    log_dataset(first, data, split_path=tmp_path / "split.json")
    finish_run(first)
    run = start(tmp_path)
    log_dataset(run, data, split_path=tmp_path / "split.json")
    entry = run.use_artifact("run-1-50-:latest").get_entry("scan #1?.nii.gz")
    again = Path(entry.download(root=str(tmp_path / "again")))
    assert again.read_bytes() == (data / "scan #1?.nii.gz").read_bytes()
    finish_run(run)
    assert "run-1-50-:v0" in server.runs[run.id].used


def test_finished_run_tells_where_it_came_from(server, tmp_path, state):
    run = start(tmp_path)
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
    run = start(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    again = start(tmp_path, run_id=load_checkpoint(tmp_path / "last.pt").run_id)
    train(again, state, tmp_path, epochs=(2,))
    finish_run(again)
    stored = server.runs[run.id]
    assert [row["_step"] for row in stored.history] == [0, 1]
    assert stored.summary["best/mean_dice"] == pytest.approx(0.5)
    assert server.find(f"{run.id}-checkpoint:best").version == 0


def test_diverged_training_alerts_and_ends_as_failed(server, tmp_path):
    run = start(tmp_path)
    with pytest.raises(TrainingError), alert_divergence(run):
        raise TrainingError("Epoch 3, batch 1: the loss is nan.")
    assert server.runs[run.id].alerts == ["ERROR Training diverged: Epoch 3, batch 1: the loss is nan."]
    assert server.runs[run.id].exit_code == 1


def test_wrong_key_falls_back_to_offline_and_says_so(server, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", 20 * "c3")
    assert resolve_mode() == "offline"
    assert "the key was not accepted" in capsys.readouterr().out


def test_server_that_is_down_at_the_start_means_offline(server, capsys):
    server.connected = False
    assert resolve_mode() == "offline"
    assert "W&B: offline" in capsys.readouterr().out


def test_server_lost_before_the_run_starts_means_offline(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    mode = resolve_mode()
    server.connected = False
    run = start(tmp_path, mode=mode)
    assert run.offline
    finish_run(run)
    assert "offline after all" in capsys.readouterr().out


@pytest.mark.parametrize("status", [404, 409, 410])
def test_run_that_was_deleted_is_gone_on_with_as_a_new_one(server, tmp_path, state, monkeypatch, capsys, status):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")  # a 409 is asked for again until then
    server.refused["deleted1"] = status
    run = start(tmp_path, run_id="deleted1")
    assert run.id != "deleted1"
    assert not run.offline
    assert f"run deleted1 was deleted on the server; run {run.id} goes on in its place" in capsys.readouterr().out
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    assert load_checkpoint(tmp_path / "last.pt").run_id == run.id
    assert len(server.runs[run.id].history) == 1


def test_a_resumed_run_without_a_server_keeps_its_id_and_goes_offline(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    server.connected = False
    run = start(tmp_path, run_id="deleted1")
    assert (run.id, run.offline) == ("deleted1", True)
    finish_run(run)
    said = capsys.readouterr().out
    assert "offline after all" in said
    assert "in its place" not in said


def test_project_and_entity_of_the_environment_hold_for_runs_and_artifacts(server, tmp_path, state, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    training = start(tmp_path)
    train(training, state, tmp_path, epochs=(1,))
    finish_run(training)
    stored = server.runs[training.id]
    assert (stored.entity, stored.project) == ("team", "theirs")
    best = server.find(f"{training.id}-checkpoint:best")
    assert (best.entity, best.project) == ("team", "theirs")
    inference = start(tmp_path, "inference")
    path = fetch_checkpoint(inference, "", local_path=tmp_path / "best.pt", root=tmp_path / "artifacts")
    assert path.is_relative_to(tmp_path / "artifacts")
    finish_run(inference)
    assert server.runs[inference.id].used == [f"{training.id}-checkpoint:v0"]


def test_in_a_sweep_the_training_alone_is_the_trial(server, tmp_path, state, monkeypatch):
    for name, value in {"RUN_ID": "trial1", "SWEEP_ID": "sweep1", "PROJECT": "searched"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    ids = {}
    for name, job_type in (("before", "dataset"), ("trial", "train"), ("after", "inference"), ("second", "train")):
        run = start(tmp_path, job_type)
        ids[name] = run.id
        finish_run(run)
    assert ids["trial"] == "trial1"
    assert len({*ids.values()}) == 4
    assert {name: server.runs[run_id].sweep for name, run_id in ids.items() if server.runs[run_id].sweep} == {
        "trial": "sweep1"
    }
    assert {server.runs[run_id].project for run_id in ids.values()} == {"searched"}


def test_server_lost_in_mid_run_stops_no_training_and_gets_everything_later(server, tmp_path, state):
    run = start(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    server.connected = False
    train(run, state, tmp_path, epochs=(2, 3))
    server.connected = True
    finish_run(run)
    stored = server.runs[run.id]
    assert [row["validation/validation_step"] for row in stored.history] == [1, 2, 3]
    assert [server.find(f"{run.id}-checkpoint:epoch_{epoch}").version for epoch in (1, 2, 3)] == [0, 1, 2]


def test_server_that_stays_away_ends_the_run_with_a_line_that_uploads_it(server, tmp_path, state, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    run = start(tmp_path)
    server.connected = False
    train(run, state, tmp_path, epochs=(1, 2))
    finish_run(run)
    server.connected = True
    sync(capsys.readouterr().out.splitlines()[-1])
    assert [row["validation/validation_step"] for row in server.runs[run.id].history] == [1, 2]
    assert load_checkpoint(tmp_path / "last.pt").epoch == 2


def test_tampered_download_is_refused(server, tmp_path, state, monkeypatch):
    run = start(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    server.tampered = ("checkpoint.pt",)
    inference = start_run(job_type="inference", mode="online", output_dir=tmp_path / "elsewhere", config=CONFIG)
    with pytest.raises(ValueError, match="is not what was logged"):
        fetch_checkpoint(inference, f"{run.id}-checkpoint:best", local_path=tmp_path / "no.pt", root=tmp_path / "a")
    finish_run(inference)


def test_checkpoint_that_wandb_lacks_is_taken_from_disk_or_refused(server, tmp_path, state, capsys):
    save_progress(state, tmp_path, config=CONFIG, run_id="offline1", is_best=True)
    run = start(tmp_path, "inference")
    local = tmp_path / "best.pt"
    assert fetch_checkpoint(run, "", local_path=local, root=tmp_path / "a") == local
    assert "because W&B has no offline1-checkpoint:best" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cannot be had from W&B"):
        fetch_checkpoint(run, "other-checkpoint:best", local_path=local, root=tmp_path / "a")
    finish_run(run)


def test_offline_run_is_synced_complete_with_its_resumption(server, tmp_path, dataset, state, case, capsys):
    run = start(tmp_path, mode="offline")
    run.log({DATA_TABLE: build_data_table([case], margin=0)})
    train(run, state, tmp_path, epochs=(1, 2))
    finish_run(run)
    time.sleep(1)  # W&B names folders by the second
    again = start(tmp_path, mode="offline", run_id=run.id)
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
