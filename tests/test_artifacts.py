"""Data and checkpoints are recorded without an account, by reference or as versions, and had again."""

import os
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from wandb_log import read_artifacts, read_records, run_folder
from wandb_run import PLANTED_KEY, start

from brats_utils.artifacts import fetch_checkpoint, log_checkpoint, log_dataset
from brats_utils.saving.checkpoints import PRETRAINED
from brats_utils.tracking import finish_run, start_run

pytestmark = pytest.mark.usefixtures("quiet_wandb")


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"weights")
    return path


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_references_of_odd_paths_lead_back_to_their_files(odd_data):
    log_odd_data(odd_data, "offline")
    (artifact,) = read_artifacts(read_records(run_folder(odd_data.parent / "out")))
    references = {entry.path: entry.ref for entry in artifact.manifest.contents if entry.ref}
    assert references == {name: (odd_data / name).as_uri() for name in (f"{ODD}.nii.gz", f"imagesTr ?/{ODD}.nii.gz")}
    assert {Path(url2pathname(urlparse(uri).path)) for uri in references.values()} == set(odd_data.rglob("*.gz"))


@pytest.mark.slow
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


def test_without_a_local_best_the_pretrained_network_is_taken_and_said(tmp_path, capsys):
    run = start(tmp_path, "inference")
    assert fetch_checkpoint(run, "", local_path=tmp_path / "best.pt", root=tmp_path) == PRETRAINED
    assert f"{tmp_path / 'best.pt'}: not found, so the pretrained network" in capsys.readouterr().out
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
