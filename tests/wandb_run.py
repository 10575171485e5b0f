"""Runs as the notebooks make them: started, trained a few epochs of, and uploaded later."""

import os
import subprocess
import sys

from brats_utils.artifacts import log_checkpoint
from brats_utils.saving.resume import save_progress
from brats_utils.tracking import start_run

CONFIG = {"init_filters": 8, "dropout_prob": 0.0, "seed": 0}
PLANTED_KEY = 20 * "a1"  # forty characters, as W&B's keys have


def start(tmp_path, job_type="train", *, mode="offline", **settings):
    return start_run(job_type=job_type, mode=mode, output_dir=tmp_path / "out", config=CONFIG, **settings)


def start_online(tmp_path, job_type="train", **settings):
    return start(tmp_path, job_type, mode="online", **settings)


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
