import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from brats_utils.config import load_config
from brats_utils.saving.checkpoints import load_checkpoint

SWEEP = yaml.safe_load((Path(__file__).parents[1] / "sweep.yaml").read_text())


def choose_values(pick):
    """Choose for each parameter its first or last value, as the service would choose any."""
    parameters = SWEEP["parameters"].items()
    return {
        name: entry["values"][pick] if "values" in entry else entry[("min", "max")[pick]] for name, entry in parameters
    }


@pytest.mark.parametrize("pick", [0, -1], ids=["first", "last"])
def test_values_are_valid_settings(pick):
    config = load_config("laptop", choose_values(pick)).model_dump()
    assert {name: config[name] for name in SWEEP["parameters"]} == choose_values(pick)


@pytest.mark.slow
def test_trial_leaves_its_executed_notebook(phantom_dir, tmp_path):
    values = choose_values(0)
    macros = {"${env}": "/usr/bin/env", "${interpreter}": sys.executable, "${program}": SWEEP["program"]}
    macros |= {
        "${args_json}": json.dumps(values),
        "laptop": "smoke",
        "runs/sweep/$WANDB_RUN_ID": f"{tmp_path}/$WANDB_RUN_ID",
    }
    command = [macros.get(word, word) for word in SWEEP["command"]] + ["-p", "data", str(phantom_dir)]
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_RUN_ID": "trial1"}
    subprocess.run(command, check=True, timeout=300, env=env, cwd=Path(__file__).parents[1])
    assert (tmp_path / "trial1" / "03_train.ipynb").is_file()
    last = load_checkpoint(tmp_path / "trial1" / "checkpoints" / "last.pt")
    assert last.run_id == "trial1"
    assert {name: last.config[name] for name in values} == values
