"""W&B artifacts: the data that a run is about, and its checkpoints, in versions."""

import re
from pathlib import Path

import wandb

from brats_utils.connection import is_online
from brats_utils.paths import display_path
from brats_utils.saving.checkpoints import find_checkpoint, load_checkpoint


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
    is_own_best = not name and file == local_path
    if file.is_file() and not is_own_best:
        print(f"Checkpoint: the file {display_path(file)}.")
        return file
    label, artifact, obstacle = name, None, "W&B is not online"
    if is_online(run):
        label = name or f"{load_checkpoint(file).run_id}-checkpoint:best"
        try:
            artifact = run.use_artifact(label, type="model")
        except (wandb.Error, ValueError) as error:
            obstacle = f"W&B has no {label} ({error})"
    if artifact is None and name:
        raise ValueError(
            f"weights: found {name!r}, which is no file here, and cannot be had from W&B: {obstacle}. Expected a file, "
            "'pretrained', an artifact such as '<run id>-checkpoint:best', or nothing for your own last best."
        )
    if artifact is None:
        print(f"Checkpoint: {display_path(file)}, the local best, because {obstacle}.")
        return file
    return _download(artifact, label, root=root)


def _download(artifact: wandb.Artifact, label: str, *, root: Path) -> Path:
    """Download the checkpoint of an artifact that was asked for as `label`, and verify its checksum."""
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
