"""Weights & Biases runs: with an account, without one, or not at all."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import wandb

from brats_utils.connection import end_service, find_obstacle, is_online
from brats_utils.paths import REPOSITORY, display_path
from brats_utils.saving.resume import TrainingError

PROJECT = "monai-brain-tumor-segmentation"
Mode = Literal["online", "offline", "disabled"]
JobType = Literal["dataset", "train", "inference"]

FINISH_SECONDS = 600
"""How long the end of a run waits for a lost server, unless WANDB_FINISH_TIMEOUT says otherwise."""

RUN_OF_JOB = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_LAUNCH", "TRAINING_JOB_NAME")
EARLIER_RUN = ("WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
"""What a sweep or a cluster sets: the run of a job, which is the first training of a process; whether one goes on."""

METRICS = {
    "batch/*": ("batch/batch_step", None),
    "epoch/*": ("epoch/epoch_step", None),
    "epoch/mean_train_loss": ("epoch/epoch_step", "min,last"),
    "validation/*": ("validation/validation_step", "max,last"),
}
"""Metric pattern: the step it is drawn against, and what the summary keeps beside W&B's default, the last value."""


def resolve_mode(requested: str = "auto") -> Mode:
    """Decide once whether runs go to the server, and say so. Never prompts.

    `auto` is `WANDB_MODE` if that is set, else online if a key is found and valid, else offline. `online` turns into
    `offline` where the key is wrong or the network is down.

    Raises:
        ValueError: if `requested`, or `WANDB_MODE`, is none of these.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # its messages name the user's folders
    source, wish = "wandb_mode", requested
    if requested == "auto":
        source, wish = "WANDB_MODE", os.environ.get("WANDB_MODE") or "auto"
    if wish not in ("auto", *get_args(Mode)):
        raise ValueError(
            f"{source}: found {wish!r}, expected auto, {', '.join(get_args(Mode))}. "
            f"Set {source} to one of these; auto goes online if it can."
        )
    if wish == "disabled":
        print("W&B: disabled, as asked.")
        return "disabled"
    if wish == "offline":
        print("W&B: offline, as asked. Upload later with `wandb sync`.")
        return "offline"
    obstacle = find_obstacle()
    if obstacle:
        print(f"W&B: offline, {obstacle}. Nothing is lost: upload later with `wandb sync`.")
        return "offline"
    print("W&B: online.")
    return "online"


def start_run(
    *, job_type: JobType, mode: Mode, output_dir: Path, config: Mapping[str, Any], run_id: str | None = None
) -> wandb.Run:
    """Start a run, or go on with one; everything it writes stays in `output_dir`/wandb.

    It records the settings and the commit of this repository. W&B's folders are set for the whole process: tables and
    artifacts are staged there for as long as it lives. An open run is finished first. Should the server be gone since
    `resolve_mode` gave the mode, the run starts offline; should the run be deleted there, a new one starts. Both say so.
    """
    _keep_files_in(output_dir / "wandb")
    if wandb.run is not None:
        finish_run(wandb.run)
    end_service()  # one started earlier would go on logging to the folders of then
    init = partial(
        wandb.init,
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        job_type=job_type,
        dir=output_dir,
        config=dict(config),
        id=run_id,
        resume="allow" if run_id else None,
        settings=wandb.Settings(silent=True, git_root=str(REPOSITORY), finish_timeout_raises=True),
    )
    is_first_training = job_type == "train" and run_id is None
    hidden = _take(EARLIER_RUN if is_first_training else EARLIER_RUN + RUN_OF_JOB)
    known_id = run_id or os.environ.get("WANDB_RUN_ID", "")
    try:
        run = init(mode=mode)
    except wandb.errors.CommError as error:
        end_service()  # else the id is in use
        reason = str(error).partition("\n")[0]
        if known_id and _is_deleted(reason, known_id):
            _take(RUN_OF_JOB)
            run = start_run(job_type=job_type, mode=mode, output_dir=output_dir, config=config)
            print(f"W&B: run {known_id} was deleted on the server; run {run.id} goes on in its place.")
            return run
        print(f"W&B: offline after all ({reason}). Nothing is lost: upload later with `wandb sync`.")
        run = init(mode="offline")
    finally:
        _take(RUN_OF_JOB)
        os.environ.update(hidden)
    if job_type == "train":
        _define_metrics(run)
    return run


def _keep_files_in(folder: Path) -> None:
    """Have W&B write to a folder for the rest of this process."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("DATA", "CACHE", "ARTIFACT"):  # CONFIG stays: it names the server of self-hosted accounts
        os.environ[f"WANDB_{kind}_DIR"] = str(folder.resolve())
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_SECONDS))


def _is_deleted(reason: str, run_id: str) -> bool:
    """Tell whether the server refuses a run because it was deleted there; the id itself may have digits such as 404."""
    return bool(re.search(r"(HTTP|error) (404|409|410)|deleted|not found", reason.replace(run_id, "")))


def _define_metrics(run: wandb.Run) -> None:
    """Tell W&B what each metric is drawn against, and what its summary keeps."""
    for step in dict.fromkeys(step for step, _ in METRICS.values()):
        run.define_metric(step, hidden=True)
    for pattern, (step, summary) in METRICS.items():
        run.define_metric(pattern, step_metric=step, summary=summary)


def _take(names: Iterable[str]) -> dict[str, str]:
    """Remove variables from the environment, and give those that were there."""
    return {name: os.environ.pop(name) for name in names if name in os.environ}


@contextmanager
def alert_divergence(run: wandb.Run) -> Iterator[None]:
    """Around a training loop: should it diverge, alert the owner of the run and close it as failed.

    Online, W&B sends the alert by mail or Slack. The `TrainingError` goes on.
    """
    try:
        yield
    except TrainingError as error:
        run.alert("Training diverged", str(error), level="ERROR")
        finish_run(run, exit_code=1)
        raise


def finish_run(run: wandb.Run, *, exit_code: int = 0) -> None:
    """Close the run, and say where it is: its address, or the line that uploads it. An exit code but 0 means failed."""
    folder = Path(run.settings.sync_dir)
    parts = sorted(folder.parent.glob(f"offline-run-*-{run.id}"))  # several if it was resumed
    options = ""
    online, disabled, url = is_online(run), run.disabled, run.url
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print("W&B: the server is still away. Checkpoints that did not go up are whole in the output folder.")
        end_service()
        online = False
        parts = [folder]
        options = "--include-online "
    if disabled:
        return
    if online:
        print(f"Run finished: {url}")
        return
    shown = [display_path(part) for part in parts]
    place = "" if Path(shown[0]).is_absolute() else ", in the working folder"
    print(f"Run finished. To upload it{place}: wandb sync {options}{shlex.join(shown)}")
