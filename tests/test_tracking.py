import os
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from wandb_log import read_artifacts, read_history, read_records

from brats_utils.saving.checkpoints import PRETRAINED
from brats_utils.saving.resume import TrainingError
from brats_utils.tracking import (
    PROJECT,
    alert_divergence,
    fetch_checkpoint,
    finish_run,
    log_checkpoint,
    log_dataset,
    resolve_mode,
    start_run,
)

PLANTED_KEY = 20 * "a1"  # forty characters, as W&B's keys have


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"weights")
    return path


def run_folder(output_dir):
    (folder,) = (output_dir / "wandb").glob("offline-run-*")
    return folder


def start(tmp_path, job_type="train", mode="offline", **settings):
    return start_run(job_type=job_type, mode=mode, output_dir=tmp_path / "out", config={"seed": 0}, **settings)


def test_without_a_key_the_mode_is_offline_and_says_how_to_change_that(capsys):
    assert resolve_mode() == "offline"
    assert "W&B: offline, no key found" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_mode_of_the_environment_counts_for_auto_alone(monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert resolve_mode("auto") == mode
    assert resolve_mode("offline") == "offline"


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="found 'on', expected auto, online, offline, disabled"):
        resolve_mode("on")


def test_key_without_a_server_falls_back_to_offline(monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", PLANTED_KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert resolve_mode("online") == "offline"
    assert PLANTED_KEY not in "".join(capfd.readouterr())


def test_run_carries_project_job_type_and_config(tmp_path):
    finish_run(start(tmp_path, "inference"))
    records = read_records(run_folder(tmp_path / "out"))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.job_type) == (PROJECT, "inference")
    assert {item.key: item.value_json for item in run.config.update}["seed"] == "0"


NAMED = {"WANDB_RUN_ID": "job1", "WANDB_SWEEP_ID": "sweep1", "WANDB_LAUNCH": "true"}
JOBS = ("dataset", "dataset", "train", "inference", "train")


@pytest.mark.parametrize("named", [{}, *({name: value} for name, value in NAMED.items()), NAMED])
def test_the_run_that_a_job_names_is_its_first_training_and_no_other(tmp_path, monkeypatch, named):
    for name, value in {"WANDB_RUN_ID": "job1", **named}.items():
        monkeypatch.setenv(name, value)
    ids = []
    for job_type in JOBS:
        run = start(tmp_path, job_type)
        ids.append(run.id)
        finish_run(run)
    assert ids[2] == "job1"
    assert len(set(ids)) == len(JOBS)


def test_a_run_to_go_on_with_is_not_replaced_by_that_of_the_job(tmp_path, monkeypatch):
    job = NAMED | {"WANDB_RESUME": "must", "SM_TRAINING_ENV": "{}", "TRAINING_JOB_NAME": "job"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    run = start(tmp_path, run_id="mine")
    assert run.id == "mine"
    finish_run(run)
    assert {name: os.environ.get(name) for name in ("WANDB_RESUME", "TRAINING_JOB_NAME")} == {
        "WANDB_RESUME": "must",
        "TRAINING_JOB_NAME": "job",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESUME", "must"),
        ("RESUME", "never"),
        ("RESUME", "auto"),
        ("RESUME_FROM", "a?_step=1"),
        ("FORK_FROM", "a?_step=1"),
    ],
)
@pytest.mark.parametrize("run_id", [None, "mine"])
def test_whether_a_run_goes_on_is_not_for_the_environment_to_say(tmp_path, monkeypatch, name, value, run_id):
    monkeypatch.setenv(f"WANDB_{name}", value)
    first = start(tmp_path, run_id=run_id)  # left open, as by a crash
    second = start(tmp_path, "inference")
    assert first.id != second.id
    assert first.id == (run_id or first.id) != "a"
    finish_run(second)


def test_wishes_of_the_environment_are_kept_for_every_run(tmp_path, monkeypatch):
    wishes = {"NAME": "n", "RUN_GROUP": "g", "TAGS": "a,b", "NOTES": "why", "PROJECT": "theirs", "ENTITY": "team"}
    for name, value in (wishes | {"JOB_TYPE": "other", "DIR": str(tmp_path / "elsewhere")}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for job_type in ("dataset", "train"):
        finish_run(start_run(job_type=job_type, mode="offline", output_dir=tmp_path / job_type, config={}))
        records = read_records(run_folder(tmp_path / job_type))
        (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert (run.display_name, run.run_group, list(run.tags), run.notes) == ("n", "g", ["a", "b"], "why")
        assert (run.project, run.entity, run.job_type) == ("theirs", "team", job_type)


def test_metrics_are_drawn_against_their_own_steps_and_validation_keeps_its_maximum(tmp_path):
    run = start(tmp_path)
    run.log({"validation/validation_step": 1, "validation/mean_dice": 0.5})
    finish_run(run)
    records = read_records(run_folder(tmp_path / "out"))
    metrics = [record.metric for record in records if record.WhichOneof("record_type") == "metric"]
    steps = {metric.glob_name: metric.step_metric for metric in metrics if metric.glob_name}
    assert steps == {
        "batch/*": "batch/batch_step",
        "epoch/*": "epoch/epoch_step",
        "validation/*": "validation/validation_step",
    }
    (validation,) = [metric for metric in metrics if metric.glob_name == "validation/*"]
    assert validation.summary.max
    assert validation.summary.last
    assert read_history(records)[0]["validation/mean_dice"] == 0.5


def test_each_checkpoint_is_a_version_of_its_own_with_aliases_and_metadata(tmp_path, checkpoint):
    run = start(tmp_path)
    log_checkpoint(run, checkpoint, epoch=1, mean_dice=0.5, is_best=True)
    checkpoint.write_bytes(b"other weights")
    log_checkpoint(run, checkpoint, epoch=2, mean_dice=0.4, is_best=False)
    finish_run(run)
    first, second = read_artifacts(read_records(run_folder(tmp_path / "out")))
    assert first.name == second.name == f"{run.id}-checkpoint"
    assert first.type == "model"
    assert first.digest != second.digest
    assert set(first.aliases) >= {"epoch_1", "best"}
    assert "best" not in second.aliases
    assert '"epoch":1' in first.metadata.replace(" ", "")


def test_summary_keeps_the_best_epoch(tmp_path, checkpoint):
    run = start(tmp_path)
    for epoch, dice, is_best in ((1, 0.5, True), (2, 0.4, False)):
        log_checkpoint(run, checkpoint, epoch=epoch, mean_dice=dice, is_best=is_best)
    assert (run.summary["best/epoch"], run.summary["best/mean_dice"]) == (1, 0.5)
    finish_run(run)


def test_disabled_run_lets_a_divergence_through(tmp_path):
    with pytest.raises(TrainingError), alert_divergence(start(tmp_path, mode="disabled")):
        raise TrainingError("the loss is nan")


def test_dataset_is_logged_by_reference_and_not_copied(tmp_path):
    data = tmp_path / "phantom"
    data.mkdir()
    (data / "scan.nii.gz").write_bytes(os.urandom(100_000))
    (tmp_path / "split.json").write_text("{}")
    run = start(tmp_path, "dataset")
    log_dataset(run, data, split_path=tmp_path / "split.json")
    finish_run(run)
    (artifact,) = read_artifacts(read_records(run_folder(tmp_path / "out")))
    entries = {entry.path: entry for entry in artifact.manifest.contents}
    assert entries["scan.nii.gz"].ref.startswith("file://")
    assert not entries["split.json"].ref
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) < 100_000


ODD = "run #1 50% é? %20"


@pytest.fixture
def odd_data(tmp_path):
    """Data whose folders and files have signs in their names that mean something in a URI."""
    data = tmp_path / ODD / "data;a=b&c #2"
    (data / "imagesTr ?").mkdir(parents=True)
    for name in (f"{ODD}.nii.gz", f"imagesTr ?/{ODD}.nii.gz"):
        (data / name).write_bytes(os.urandom(10))
    (data.parent / "split.json").write_text("{}")
    return data


def log_odd_data(data, mode, job_type="dataset"):
    """Log data from an output folder beside it."""
    run = start_run(job_type=job_type, mode=mode, output_dir=data.parent / "out", config={})
    log_dataset(run, data, split_path=data.parent / "split.json")
    finish_run(run)


def test_references_of_odd_paths_lead_back_to_their_files(odd_data):
    log_odd_data(odd_data, "offline")
    (artifact,) = read_artifacts(read_records(run_folder(odd_data.parent / "out")))
    references = {entry.path: entry.ref for entry in artifact.manifest.contents if entry.ref}
    assert references == {name: (odd_data / name).as_uri() for name in (f"{ODD}.nii.gz", f"imagesTr ?/{ODD}.nii.gz")}
    assert {Path(url2pathname(urlparse(uri).path)) for uri in references.values()} == set(odd_data.rglob("*.gz"))


def test_files_that_cannot_be_recorded_are_left_out_and_named(odd_data, capsys):
    (odd_data / "gone.nii.gz").symlink_to(odd_data / "nowhere")
    (odd_data / os.fsdecode(b"caf\xe9.nii.gz")).write_bytes(b"1")
    log_odd_data(odd_data, "offline")
    assert "W&B: 'caf\\udce9.nii.gz' cannot be recorded with the data." in capsys.readouterr().out
    (artifact,) = read_artifacts(read_records(run_folder(odd_data.parent / "out")))
    assert len(artifact.manifest.contents) == 3


@pytest.mark.parametrize(("mode", "job_type"), [("disabled", "dataset"), ("disabled", "train"), ("offline", "train")])
def test_no_checksum_is_made_that_nobody_can_use(odd_data, monkeypatch, mode, job_type):
    monkeypatch.setattr("wandb.Artifact.add_reference", lambda *arguments, **how: pytest.fail("read"))
    log_odd_data(odd_data, mode, job_type)


def test_everything_lies_inside_the_output_folder(tmp_path, checkpoint, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    run = start(tmp_path)
    log_checkpoint(run, checkpoint, epoch=1, mean_dice=0.5, is_best=True)
    finish_run(run)
    assert not [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in (tmp_path / "out/wandb/artifacts/staging").iterdir()]


def test_last_line_uploads_the_run_that_was_made(tmp_path, capsys):
    finish_run(start(tmp_path))
    line = capsys.readouterr().out.strip()
    assert line.endswith(f"wandb sync {run_folder(tmp_path / 'out')}")


def test_offline_the_local_best_is_taken_and_said(tmp_path, checkpoint, capsys):
    run = start(tmp_path, "inference")
    assert fetch_checkpoint(run, "", local_path=checkpoint, root=tmp_path) == checkpoint
    assert "the local best" in capsys.readouterr().out
    with pytest.raises(ValueError, match="W&B is not online"):
        fetch_checkpoint(run, "abc-checkpoint:best", local_path=checkpoint, root=tmp_path)
    finish_run(run)


@pytest.mark.parametrize("local", ["no.pt", "last.pt"])
def test_a_file_that_is_named_is_taken_as_it_is(tmp_path, checkpoint, local):
    run = start(tmp_path, "inference")
    assert fetch_checkpoint(run, str(checkpoint), local_path=tmp_path / local, root=tmp_path) == checkpoint
    assert fetch_checkpoint(run, "pretrained", local_path=checkpoint, root=tmp_path) == PRETRAINED
    finish_run(run)


def test_without_a_local_best_the_network_in_the_box_is_taken_and_said(tmp_path, capsys):
    run = start(tmp_path, "inference")
    assert fetch_checkpoint(run, "", local_path=tmp_path / "best.pt", root=tmp_path) == PRETRAINED
    assert f"{tmp_path / 'best.pt'}: not found, so the network in the box" in capsys.readouterr().out
    finish_run(run)


def test_disabled_mode_runs_the_same_calls(tmp_path, checkpoint):
    (tmp_path / "split.json").write_text("{}")
    run = start(tmp_path, mode="disabled")
    run.log({"batch/train_loss": 1.0})
    log_dataset(run, tmp_path, split_path=tmp_path / "split.json")
    log_checkpoint(run, checkpoint, epoch=1, mean_dice=0.5, is_best=True)
    run.log_artifact(tmp_path, name=f"{run.id}-predictions", type="predictions")  # as notebook 04 does
    assert fetch_checkpoint(run, "", local_path=checkpoint, root=tmp_path) == checkpoint
    finish_run(run)


def test_key_reaches_no_file_and_no_output(tmp_path, checkpoint, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", PLANTED_KEY)
    run = start(tmp_path)
    log_checkpoint(run, checkpoint, epoch=1, mean_dice=0.5, is_best=True)
    finish_run(run)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if PLANTED_KEY.encode() in path.read_bytes()]
    assert PLANTED_KEY not in "".join(capfd.readouterr())
