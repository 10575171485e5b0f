"""The whole tutorial, executed by papermill on the preset `smoke`; on other data than the phantom: test_own_folder.py."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats_utils.commands.cli import main
from brats_utils.commands.run import NOTEBOOKS, run_notebooks
from brats_utils.labels import REGIONS
from brats_utils.paths import resolve_path
from brats_utils.saving.checkpoints import PRETRAINED, load_checkpoint

pytestmark = pytest.mark.slow


PLANTED = "5eed" * 10
"""What would be a key of W&B."""


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """The output folder of all notebooks, started from the shell with a key; `printed.txt` beside it has what was said."""
    output_dir = tmp_path_factory.mktemp("first") / "run"
    command = [sys.executable, "-m", "brats_utils", "run", "-p", "preset", "smoke", "-p", "wandb_mode", "offline"]
    environment = {**os.environ, "WANDB_API_KEY": PLANTED}
    with (output_dir.parent / "printed.txt").open("w") as file:
        done = subprocess.run([*command, "-p", "output_dir", output_dir], env=environment, stdout=file, stderr=file)
    assert done.returncode == 0, (output_dir.parent / "printed.txt").read_text()
    return output_dir


@pytest.mark.slow(minutes=3)
def test_executed_notebooks_hold_figures_and_no_error(first_run):
    pictures = {}
    for name in NOTEBOOKS:
        notebook = nbformat.read(first_run / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        pictures[name] = sum("image/png" in output.get("data", {}) for output in outputs)
    assert all(pictures.values()), pictures


def test_metrics_hold_a_score_for_every_region(first_run):
    metrics = json.loads((first_run / "metrics.json").read_text())
    assert metrics["preset"] == "smoke"
    for name in [region.name for region in REGIONS] + ["mean"]:
        scores = metrics["test"][name]
        assert 0 <= scores["dice"] <= 1
        assert scores["low"] is scores["high"] is None, "one test case gives no interval"
        assert scores["cases"] == len(json.loads((first_run / "split.json").read_text())["parts"]["test"])


def test_scores_are_those_of_the_predictions_on_disk(first_run):
    table = pd.read_csv(first_run / "cases.csv")
    files = json.loads((first_run / "split.json").read_text())["parts"]["test"]
    assert sorted(table["case_id"]) == sorted(files)
    dataset_dir = load_checkpoint(first_run / "checkpoints/best.pt").config["dataset_dir"]
    for row in table.itertuples():
        predicted = np.asanyarray(nib.load(first_run / f"predictions/{row.case_id}.nii.gz").dataobj) == 3
        truth_path = resolve_path(dataset_dir) / f"labelsTr/{row.case_id}.nii.gz"
        truth = np.asanyarray(nib.load(truth_path).dataobj) == 3
        total = predicted.sum() + truth.sum()
        assert row.dice_ET == pytest.approx(2 * (predicted & truth).sum() / total if total else 1, abs=1e-4)


def test_a_key_is_written_and_printed_nowhere(first_run):
    files = [path for path in first_run.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]
    printed = (first_run.parent / "printed.txt").read_text()
    assert all(f"=== {name}" in printed for name in NOTEBOOKS)
    assert PLANTED not in printed


def test_the_same_seed_gives_the_same_metrics(first_run, tmp_path):
    parameters = {"preset": "smoke", "output_dir": str(tmp_path), "wandb_mode": "offline"}
    run_notebooks(parameters, tmp_path, notebooks=["01_setup", "03_train", "04_inference"])
    assert (tmp_path / "metrics.json").read_text() == (first_run / "metrics.json").read_text()
    first, second = (pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (first_run, tmp_path))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_evaluate_command_repeats_the_notebooks_scores(first_run, tmp_path, capsys):
    checkpoint = first_run / "checkpoints/best.pt"
    data = resolve_path(load_checkpoint(checkpoint).config["dataset_dir"])
    main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path), "--no-flips"])
    everything = pd.read_csv(tmp_path / "cases.csv").set_index("case_id")
    tested = pd.read_csv(first_run / "cases.csv").set_index("case_id")
    pd.testing.assert_frame_equal(everything.loc[tested.index], tested)
    assert "region   Dice" in capsys.readouterr().out


def test_without_a_training_the_pretrained_network_stands_in_and_a_line_says_so(first_run, tmp_path, capfd):
    shutil.copy(first_run / "split.json", tmp_path / "split.json")
    parameters = {"preset": "smoke", "output_dir": str(tmp_path), "wandb_mode": "offline"}
    run_notebooks(parameters, tmp_path, notebooks=["04_inference", "06_your_scans"])
    assert capfd.readouterr().out.count("best.pt: not found, so the pretrained network") == 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["checkpoint_epoch"] == load_checkpoint(PRETRAINED).epoch
