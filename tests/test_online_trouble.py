"""A server of W&B that refuses, forgets, alters or goes away stops no training, and nothing is lost."""

import pytest
from wandb_run import CONFIG, start_online, sync, train

from brats_utils.artifacts import fetch_checkpoint
from brats_utils.saving.checkpoints import load_checkpoint
from brats_utils.saving.resume import save_progress
from brats_utils.tracking import finish_run, resolve_mode, start_run

pytestmark = pytest.mark.slow


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
    assert resolve_mode() == "online"
    server.connected = False
    run = start_online(tmp_path)
    assert run.offline
    finish_run(run)
    assert "offline after all" in capsys.readouterr().out


@pytest.mark.parametrize("status", [404, 409, 410])
def test_run_that_was_deleted_is_gone_on_with_as_a_new_one(server, tmp_path, state, monkeypatch, capsys, status):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")  # a 409 is asked for again until then
    server.refused["deleted1"] = status
    run = start_online(tmp_path, run_id="deleted1")
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
    run = start_online(tmp_path, run_id="deleted1")
    assert (run.id, run.offline) == ("deleted1", True)
    finish_run(run)
    said = capsys.readouterr().out
    assert "offline after all" in said
    assert "in its place" not in said


def test_server_lost_in_mid_run_stops_no_training_and_gets_everything_later(server, tmp_path, state):
    run = start_online(tmp_path)
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
    run = start_online(tmp_path)
    server.connected = False
    train(run, state, tmp_path, epochs=(1, 2))
    finish_run(run)
    server.connected = True
    sync(capsys.readouterr().out.splitlines()[-1])
    assert [row["validation/validation_step"] for row in server.runs[run.id].history] == [1, 2]
    assert load_checkpoint(tmp_path / "last.pt").epoch == 2


def test_tampered_download_is_refused(server, tmp_path, state):
    run = start_online(tmp_path)
    train(run, state, tmp_path, epochs=(1,))
    finish_run(run)
    server.tampered = ("checkpoint.pt",)
    inference = start_run(job_type="inference", mode="online", output_dir=tmp_path / "elsewhere", config=CONFIG)
    with pytest.raises(ValueError, match="is not what was logged"):
        fetch_checkpoint(inference, f"{run.id}-checkpoint:best", local_path=tmp_path / "no.pt", root=tmp_path / "a")
    finish_run(inference)


def test_checkpoint_that_wandb_lacks_is_taken_from_disk_or_refused(server, tmp_path, state, capsys):
    save_progress(state, tmp_path, config=CONFIG, run_id="offline1", is_best=True)
    run = start_online(tmp_path, "inference")
    local = tmp_path / "best.pt"
    assert fetch_checkpoint(run, "", local_path=local, root=tmp_path / "a") == local
    assert "because W&B has no offline1-checkpoint:best" in capsys.readouterr().out
    with pytest.raises(ValueError, match="cannot be had from W&B"):
        fetch_checkpoint(run, "other-checkpoint:best", local_path=local, root=tmp_path / "a")
    finish_run(run)
