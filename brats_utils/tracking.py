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
    source = "WANDB_MODE" if requested == "auto" else "wandb_mode"
    wish = os.environ.get("WANDB_MODE") or "auto" if requested == "auto" else requested
    if wish not in ("auto", *get_args(Mode)):
        raise ValueError(
            f"{source}: found {wish!r}, expected auto, {', '.join(get_args(Mode))}. "
            f"Set {source} to one of these; auto goes online if it can."
        )
    if wish in ("offline", "disabled"):
        print(f"W&B: {wish}, as asked." + (" Upload later with `wandb sync`." if wish == "offline" else ""))
        return wish  # type: ignore[return-value]
    obstacle = find_obstacle()
    print(f"W&B: offline, {obstacle}. Nothing is lost: upload later with `wandb sync`." if obstacle else "W&B: online.")
    return "offline" if obstacle else "online"


def start_run(
    *, job_type: JobType, mode: Mode, output_dir: Path, config: Mapping[str, Any], run_id: str | None = None
) -> wandb.Run:
    """Start a run, or go on with one; everything it writes stays in `output_dir`/wandb.

    It records the settings and the commit of this repository. W&B's folders are set for the whole process: tables and
    artifacts are staged there for as long as it lives. An open run is finished first. Should the server be gone since
    `resolve_mode` gave the mode, the run starts offline; should the run be deleted there, a new one starts. Both say so.
    """
    folder = output_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("DATA", "CACHE", "ARTIFACT"):  # CONFIG stays: it names the server of self-hosted accounts
        os.environ[f"WANDB_{kind}_DIR"] = str(folder.resolve())
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_SECONDS))
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
    hidden = _take(EARLIER_RUN if job_type == "train" and run_id is None else EARLIER_RUN + RUN_OF_JOB)
    known_id = run_id or os.environ.get("WANDB_RUN_ID", "")
    try:
        run = init(mode=mode)
    except wandb.errors.CommError as error:
        end_service()  # else the id is in use
        said = str(error).partition("\n")[0]
        if known_id and re.search(r"(HTTP|error) (404|409|410)|deleted|not found", said.replace(known_id, "")):
            _take(RUN_OF_JOB)
            run = start_run(job_type=job_type, mode=mode, output_dir=output_dir, config=config)
            print(f"W&B: run {known_id} was deleted on the server; run {run.id} goes on in its place.")
            return run
        print(f"W&B: offline after all ({said}). Nothing is lost: upload later with `wandb sync`.")
        run = init(mode="offline")
    finally:
        _take(RUN_OF_JOB)
        os.environ.update(hidden)
    if job_type == "train":
        for step in dict.fromkeys(step for step, _ in METRICS.values()):
            run.define_metric(step, hidden=True)
        for pattern, (step, summary) in METRICS.items():
            run.define_metric(pattern, step_metric=step, summary=summary)
    return run


def _take(names: Iterable[str]) -> dict[str, str]:
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
    folder, online, disabled, url = Path(run.settings.sync_dir), is_online(run), run.disabled, run.url
    parts, options = sorted(folder.parent.glob(f"offline-run-*-{run.id}")), ""  # several if it was resumed
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print("W&B: the server is still away. Checkpoints that did not go up are whole in the output folder.")
        end_service()
        online, parts, options = False, [folder], "--include-online "
    if disabled:
        return
    shown = [display_path(part) for part in parts]
    where = "" if online or Path(shown[0]).is_absolute() else ", in the working folder"
    upload = f"Run finished. To upload it{where}: wandb sync {options}{shlex.join(shown)}"
    print(f"Run finished: {url}" if online else upload)
