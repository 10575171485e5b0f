"""A run of W&B without an account: its mode, its id, and what the environment may say of both."""

import os

import pytest
from wandb_log import read_history, read_records, run_folder
from wandb_run import PLANTED_KEY, start

from brats_utils.saving.resume import TrainingError
from brats_utils.tracking import PROJECT, alert_divergence, finish_run, resolve_mode, start_run

pytestmark = pytest.mark.usefixtures("quiet_wandb")


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_disabled_run_lets_a_divergence_through(tmp_path):
    with pytest.raises(TrainingError), alert_divergence(start(tmp_path, mode="disabled")):
        raise TrainingError("the loss is nan")


def test_last_line_uploads_the_run_that_was_made(tmp_path, capsys):
    finish_run(start(tmp_path))
    line = capsys.readouterr().out.strip()
    assert line.endswith(f"wandb sync {run_folder(tmp_path / 'out')}")
