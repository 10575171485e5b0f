"""Weights & Biases runs and artifacts, with an account, without one, or not at all."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import wandb

from brats_utils.paths import REPOSITORY, display_path
from brats_utils.saving.checkpoints import find_checkpoint, load_checkpoint
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

LOGIN_SECONDS = 60
LOG_IN = """
import inspect, os, wandb
try:
    if "prompt" in inspect.signature(wandb.login).parameters:
        found = wandb.login(prompt=False, verify=True)
    else:  # wandb 0.28, as Colab ships it
        found = bool(wandb.api.api_key) and wandb.login(verify=True)
    answer, code = ("", 0) if found else ("no key", 1)
except Exception as error:
    answer, code = type(error).__name__, 1
print(answer, flush=True)
os._exit(code)  # without waiting for W&B's service
"""
"""Logs in with a key that is there already, verified; never prompts."""


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
    obstacle = _find_obstacle()
    print(f"W&B: offline, {obstacle}. Nothing is lost: upload later with `wandb sync`." if obstacle else "W&B: online.")
    return "offline" if obstacle else "online"


def _find_obstacle() -> str:
    """Say what keeps runs from the server and what to do about it; an empty text if nothing does.

    The key is verified in a process of its own, because W&B's service keeps the settings and folders it starts with,
    and without a network may take minutes to end.
    """
    if wandb.run is not None:  # beside an open run W&B does not log in
        return "" if _is_online(wandb.run) else "a run without connection is still open; finish it first"
    with TemporaryDirectory() as folder:
        here = {**os.environ, "WANDB_MODE": "online", "WANDB_CACHE_DIR": folder, "WANDB_DATA_DIR": folder}
        command = [sys.executable, "-c", LOG_IN]
        try:
            check = subprocess.run(command, env=here, capture_output=True, text=True, timeout=LOGIN_SECONDS)
        except subprocess.TimeoutExpired:
            return f"the server did not answer in {LOGIN_SECONDS} s; check the network"
    if check.returncode == 0:
        return ""
    if check.stdout.strip() == "no key":
        return "no key found; `wandb login` or WANDB_API_KEY sets one"
    return (
        f"the key was not accepted or the server not reached ({check.stdout.strip() or 'W&B failed'}); "
        "check the network, or renew the key with `wandb login --relogin`"
    )


def _end_service() -> None:
    """End W&B's service, which keeps the settings and folders it was started with; the next call starts another."""
    wandb.teardown()
    if hasattr(wandb, "api"):
        wandb.api = type(wandb.api)()  # in wandb 0.28 it would go on talking to the service that has ended


def _is_online(run: wandb.Run) -> bool:
    return not (run.offline or run.disabled)


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
    _end_service()  # one started earlier would go on logging to the folders of then
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
        _end_service()  # else the id is in use
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


def log_dataset(run: wandb.Run, dataset_dir: Path, *, split_path: Path) -> None:
    """Record which data a run is about: references with checksums, no copies, and the split manifest.

    The folder's name becomes the artifact's, with dashes for what W&B refuses. Files that it refuses are left out, and
    said. Where the artifact could be neither logged nor used, nothing is read.
    """
    if run.disabled or (run.offline and run.job_type != "dataset"):
        return
    record = run.log_artifact if run.job_type == "dataset" else run.use_artifact
    folder = dataset_dir.resolve()
    artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", folder.name, flags=re.ASCII)[:128] or "data", type="dataset")
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):  # W&B's own walk makes no URI of a name such as `a#b`
        try:
            artifact.add_reference(path.as_uri(), name=path.relative_to(folder))
        except (ValueError, OSError):  # a name that is no UTF-8 or starts like `c:`, or a file that cannot be read
            print(f"W&B: {path.name!r} cannot be recorded with the data.")
    artifact.add_file(str(split_path), name="split.json")
    record(artifact)


def log_checkpoint(run: wandb.Run, path: Path, *, epoch: int, mean_dice: float, is_best: bool) -> None:
    """Log a checkpoint as the next version of the artifact `<run id>-checkpoint`.

    A logged artifact is final, so each version is a new object. The name holds the run, so that a
    worse later run cannot take the alias `best`.
    """
    metadata = {"epoch": epoch, "val_dice": round(mean_dice, 6)}
    artifact = wandb.Artifact(f"{run.id}-checkpoint", type="model", metadata=metadata)
    artifact.add_file(str(path), name="checkpoint.pt")
    try:
        run.log_artifact(artifact, aliases=[f"epoch_{epoch}", *(["best"] if is_best else [])])
    except wandb.Error:  # a lost server must not stop the training
        print(f"W&B: the server does not answer; epoch {epoch} is in {display_path(path)} alone.")
    if is_best:
        run.summary.update({"best/epoch": epoch, "best/mean_dice": mean_dice})


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


def fetch_checkpoint(run: wandb.Run, name: str, *, local_path: Path, root: Path) -> Path:
    """Get the file of the checkpoint to predict with, verified against W&B's checksums, and say which it is.

    Args:
        run: an open run; online, it is linked to the checkpoint's artifact.
        name: `pretrained`, a file, or an artifact such as `<run id>-checkpoint:best`; empty for the user's own last best.
        local_path: the user's own last best checkpoint; see `find_checkpoint` for where there is none.
        root: folder to download to.

    Raises:
        ValueError: an artifact was asked for without a connection, is not there, or its bytes are not those logged.
    """
    file = find_checkpoint(name, best=local_path)
    if file.is_file() and (name or file != local_path):
        print(f"Checkpoint: the file {display_path(file)}.")
        return file
    label, artifact, obstacle = name, None, "W&B is not online"
    if _is_online(run):
        label = name or f"{load_checkpoint(file).run_id}-checkpoint:best"
        try:
            artifact = run.use_artifact(label, type="model")
        except (wandb.Error, ValueError) as error:
            obstacle = f"W&B has no {label} ({error})"
    if artifact is None:
        if name:
            raise ValueError(
                f"weights: found {name!r}, which is no file here, and cannot be had from W&B: {obstacle}. Expected a file, "
                "'pretrained', an artifact such as '<run id>-checkpoint:best', or nothing for your own last best."
            )
        print(f"Checkpoint: {display_path(file)}, the local best, because {obstacle}.")
        return file
    folder = Path(artifact.download(root=str(root)))
    try:
        artifact.verify(str(folder))
    except ValueError as error:
        raise ValueError(
            f"weights: {label} is not what was logged ({error}). Empty {display_path(root)} and download it again; "
            "if it stays so, do not load it."
        ) from None
    print(f"Checkpoint: artifact {artifact.name}, verified.")
    return folder / "checkpoint.pt"


def finish_run(run: wandb.Run, *, exit_code: int = 0) -> None:
    """Close the run, and say where it is: its address, or the line that uploads it. An exit code but 0 means failed."""
    folder, online, disabled, url = Path(run.settings.sync_dir), _is_online(run), run.disabled, run.url
    parts, options = sorted(folder.parent.glob(f"offline-run-*-{run.id}")), ""  # several if it was resumed
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print("W&B: the server is still away. Checkpoints that did not go up are whole in the output folder.")
        _end_service()
        online, parts, options = False, [folder], "--include-online "
    if disabled:
        return
    shown = [display_path(part) for part in parts]
    where = "" if online or Path(shown[0]).is_absolute() else ", in the working folder"
    upload = f"Run finished. To upload it{where}: wandb sync {options}{shlex.join(shown)}"
    print(f"Run finished: {url}" if online else upload)
