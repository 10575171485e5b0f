"""Weights & Biases runs and artifacts, with an account, without one, or not at all."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import wandb

from brats_utils.model import load_checkpoint
from brats_utils.paths import display_path

PROJECT = "monai-brain-tumor-segmentation"
Mode = Literal["online", "offline", "disabled"]
JobType = Literal["dataset", "train", "inference"]

METRICS = {
    "batch/*": ("batch/batch_step", None),
    "epoch/*": ("epoch/epoch_step", None),
    "validation/*": ("validation/validation_step", "max,last"),
}
"""Metric pattern: the step it is drawn against, and what the summary keeps beside W&B's default, the last value."""


def resolve_mode(requested: str = "auto") -> Mode:
    """Decide once whether runs go to the server, and say so. Never prompts.

    Args:
        requested: a mode, or `auto`: `WANDB_MODE` if set, else online if a key is found and valid, else offline.

    Returns:
        The mode. `online` turns into `offline` where the key is wrong or the network is down.

    Raises:
        ValueError: if `requested` is none of these.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # its messages name the user's folders
    wish = os.environ.get("WANDB_MODE", "auto") if requested == "auto" else requested
    if wish not in ("auto", *get_args(Mode)):
        raise ValueError(f"wandb_mode: found {wish!r}, expected auto, {', '.join(get_args(Mode))}.")
    if wish in ("offline", "disabled"):
        print(f"W&B: {wish}, as asked." + (" Upload later with `wandb sync`." if wish == "offline" else ""))
        return wish  # type: ignore[return-value]
    try:
        if _log_in():
            print("W&B: online.")
            return "online"
        reason = "no key found; `wandb login` or WANDB_API_KEY sets one"
    except wandb.Error as error:
        reason = f"the key was not accepted or the server not reached ({type(error).__name__})"
    print(f"W&B: offline, {reason}. Nothing is lost: upload later with `wandb sync`.")
    return "offline"


def _log_in() -> bool:
    """Log in with a key that is there already, verified; never prompts. False without a key."""
    if "prompt" in inspect.signature(wandb.login).parameters:
        return wandb.login(prompt=False, verify=True)
    return bool(wandb.api.api_key) and wandb.login(verify=True)  # wandb 0.28, as Colab ships it


def start_run(
    *, job_type: JobType, mode: Mode, output_dir: Path, config: Mapping[str, Any], run_id: str | None = None
) -> wandb.Run:
    """Start a run; everything it writes stays in the output folder.

    Args:
        job_type: what the run does.
        mode: from `resolve_mode`.
        output_dir: folder of the tutorial's run; W&B gets `wandb/` in it.
        config: settings to record.
        run_id: a run to go on with; None for a new one.
    """
    folder = output_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):  # else staged files lie in the home folder
        os.environ[f"WANDB_{kind}_DIR"] = str(folder)
    run = wandb.init(
        project=PROJECT,
        job_type=job_type,
        mode=mode,
        dir=output_dir,
        config=dict(config),
        id=run_id,
        resume="allow" if run_id else None,
        settings=wandb.Settings(silent=True),
    )
    if job_type == "train":
        for pattern, (step, summary) in METRICS.items():
            run.define_metric(step, hidden=True)
            run.define_metric(pattern, step_metric=step, summary=summary)
    return run


def log_dataset(run: wandb.Run, dataset_dir: Path, *, split_path: Path) -> None:
    """Record which data a run is about: references with checksums, no copies, and the split manifest.

    Args:
        run: an open run.
        dataset_dir: folder in the layout of MSD; its name becomes the artifact's.
        split_path: the manifest.
    """
    artifact = wandb.Artifact(dataset_dir.name, type="dataset")
    artifact.add_reference(f"file://{dataset_dir.resolve()}")
    artifact.add_file(str(split_path), name="split.json")
    if run.job_type == "dataset":
        run.log_artifact(artifact)
    elif not run.offline and not run.disabled:
        run.use_artifact(artifact)


def log_checkpoint(run: wandb.Run, path: Path, *, epoch: int, mean_dice: float, is_best: bool) -> None:
    """Log a checkpoint as the next version of the artifact `<run id>-checkpoint`.

    A logged artifact is final, so each version is a new object. The name holds the run, so that a
    worse later run cannot take the alias `best`.

    Args:
        run: an open run.
        path: checkpoint file.
        epoch: epochs finished.
        mean_dice: its validation mean Dice.
        is_best: whether it is the best of the run so far.
    """
    artifact = wandb.Artifact(
        f"{run.id}-checkpoint", type="model", metadata={"epoch": epoch, "val_dice": round(mean_dice, 6)}
    )
    artifact.add_file(str(path), name="checkpoint.pt")
    run.log_artifact(artifact, aliases=[f"epoch_{epoch}", *(["best"] if is_best else [])])


def fetch_checkpoint(run: wandb.Run, name: str, *, local_path: Path, root: Path) -> Path:
    """Get the checkpoint to predict with, and say which it is.

    Args:
        run: an open run; online, it is linked to the checkpoint's artifact.
        name: a file, or an artifact such as `<run id>-checkpoint:best`; empty for the reader's own last best.
        local_path: the reader's own last best checkpoint.
        root: folder to download to.

    Returns:
        Path of the checkpoint file. Its bytes are verified against the artifact's checksums.

    Raises:
        ValueError: an artifact was asked for without a connection, or its bytes are not those logged.
    """
    if name and Path(name).is_file():
        print(f"Checkpoint: the file {display_path(Path(name).resolve())}.")
        return Path(name)
    online = not (run.offline or run.disabled)
    if name and not online:
        raise ValueError(
            f"checkpoint: found {name!r}, which is no file here, and W&B is not online to fetch an artifact. "
            "Give the path of a checkpoint, or leave it empty for your own last best."
        )
    if not online:
        print(f"Checkpoint: {display_path(local_path)}, the local best, because W&B is not online.")
        return local_path
    artifact = run.use_artifact(name or f"{load_checkpoint(local_path).run_id}-checkpoint:best", type="model")
    folder = Path(artifact.download(root=str(root)))
    artifact.verify(str(folder))
    print(f"Checkpoint: artifact {artifact.name}, verified.")
    return folder / "checkpoint.pt"


def log_predictions(run: wandb.Run, folder: Path) -> None:
    """Log a folder of predicted label files as an artifact of type `predictions`."""
    artifact = wandb.Artifact(f"{run.id}-predictions", type="predictions")
    artifact.add_dir(str(folder))
    run.log_artifact(artifact)


def finish_run(run: wandb.Run) -> None:
    """Close the run, and say where it is: the line that uploads an offline one, or the address of an online one."""
    folder, online = Path(run.settings.sync_dir), not (run.offline or run.disabled)
    disabled, url = run.disabled, run.url
    run.finish()
    if not disabled:
        print(f"Run finished: {url}" if online else f"Run finished. To upload it: wandb sync {display_path(folder)}")
