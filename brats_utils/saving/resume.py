"""Where a training starts and stands: saved after each epoch and on Ctrl-C, and gone on from."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from filelock import FileLock, Timeout
from monai.networks.nets import SegResNet
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from brats_utils.paths import display_path, resolve_path, say
from brats_utils.saving.checkpoints import Checkpoint, CheckpointError, load_checkpoint, name_weights, save_checkpoint

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
MIXED_PRECISION = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
FREE_SETTINGS = {
    "num_workers", "validation_intervals", "cache", "dataset_dir", "checkpoint_dir", "max_train_images_visualized",
    "max_val_images_visualized", "max_prediction_images_visualized",
}  # fmt: skip
"""What may change between an interruption and a resume."""


class TrainingError(RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


@dataclass
class TrainingState:
    """Everything that changes while training.

    Hugging Face Accelerate prepares the model and the optimiser: for mixed precision, and, where the program was
    started by `torchrun` or `notebook_launcher`, for training together with other processes.
    """

    model: SegResNet  # the network, on its device
    loss_fn: nn.Module  # from (logits, regions) to a scalar
    optimizer: torch.optim.Optimizer  # updates the model
    schedule: LRScheduler  # sets the learning rate, one call a step
    precision: torch.dtype  # dtype for autocast; float32 means none. float16 comes with a gradient scaler
    epoch: int = 0  # epochs finished, validation included
    batch_losses: list[torch.Tensor] = field(default_factory=list)  # of the epoch not finished yet, a scalar a batch
    learning_rate: float = 0.0  # of the last step
    mean_dice: float = float("nan")  # validation mean Dice of the last validation; NaN before the first
    best_dice: float = -1.0  # best validation mean Dice so far
    history: list[dict[str, float]] = field(default_factory=list)  # a row per epoch, for `charts.plot_history`
    accelerator: Accelerator = field(init=False)  # knows this process's rank and the others

    def __post_init__(self) -> None:
        AcceleratorState._reset_state()  # it keeps the first precision for the life of the process otherwise
        self.accelerator = Accelerator(
            mixed_precision=MIXED_PRECISION[self.precision], cpu=next(self.model.parameters()).device.type == "cpu"
        )
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)

    def snapshot(self, *, config: Mapping[str, Any], run_id: str) -> Checkpoint:
        """Collect what a checkpoint holds; the tensors are shared, so save it before the next step.

        Raises:
            TrainingError: if a loss of the unfinished epoch is not finite: such a state is not worth keeping.
        """
        return Checkpoint(
            model=self.accelerator.unwrap_model(self.model).state_dict(),
            config=config,
            epoch=self.epoch,
            batch_losses=read_losses(self, [[]] * len(self.batch_losses)) if self.batch_losses else [],
            mean_dice=self.mean_dice,
            best_dice=self.best_dice,
            history=self.history,
            run_id=run_id,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            scaler=self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same settings; it may come from another device, with another precision."""
        self.accelerator.unwrap_model(self.model).load_state_dict(dict(checkpoint.model))
        self.optimizer.load_state_dict(dict(checkpoint.optimizer))
        for parameter, values in self.optimizer.state.items():  # the fused step takes both for laid out alike
            values |= {k: torch.empty_like(parameter).copy_(v) for k, v in values.items() if v.shape == parameter.shape}
        self.schedule.load_state_dict(dict(checkpoint.schedule))
        scaler = self.accelerator.scaler
        if scaler and checkpoint.scaler:
            scaler.load_state_dict(dict(checkpoint.scaler))
        elif scaler or checkpoint.scaler:
            say(
                f"Going on in {self.precision}; the checkpoint was trained in another precision. Losses differ a little."
            )
        self.batch_losses = [torch.tensor(loss, device=self.accelerator.device) for loss in checkpoint.batch_losses]
        self.epoch, self.mean_dice, self.best_dice = checkpoint.epoch, checkpoint.mean_dice, checkpoint.best_dice
        self.history = list(checkpoint.history)


def load_start(model: SegResNet, name: str, **settings: float) -> None:
    """Give a new network the weights of `pretrained`, `monai` or a checkpoint; with an empty name it keeps its own.

    The `settings` of the training, `init_filters` and `spacing_mm`, must be those of the weights.

    Raises:
        CheckpointError: settings that differ, each named; or the file does not load.
    """
    if not name:
        return
    start = load_checkpoint(resolve_path(name_weights(name)))
    start.check_settings()
    differ = {key: start.config[key] for key, value in settings.items() if start.config[key] != value}
    if differ:
        found = "; ".join(f"{key}: {settings[key]} here, {value} in the weights" for key, value in differ.items())
        raise CheckpointError(
            f"init {name!r}: found other settings than its weights were trained with: {found}. Set them to {differ}, in "
            "`overrides` or with --set, or choose other weights."
        )
    model.load_state_dict(start.build_model().state_dict())
    epoch = f"epoch {start.epoch}, " if start.epoch else ""  # a bundle does not say how long it was trained
    say(f"Weights start from {display_path(name)}: {epoch}validation mean Dice {start.mean_dice:.3f}.")


def read_losses(state: TrainingState, case_ids: list[list[str]]) -> list[float]:
    """Bring the losses of the unfinished epoch from the device, averaged over all processes.

    Raises:
        TrainingError: a loss is not finite; it names the `case_ids` of that batch.
    """
    values = state.accelerator.reduce(torch.stack(state.batch_losses), "mean")
    bad = (~values.isfinite()).nonzero().flatten().tolist()
    if bad:
        state.batch_losses = []  # this epoch is void
        raise TrainingError(
            f"Epoch {state.epoch + 1}, batch {bad[0] + 1}: the loss is {values[bad[0]].item()} on cases "
            f"{gather_object(case_ids[bad[0]])}. Look at these cases, or lower initial_learning_rate; "
            "the last checkpoint is intact."
        )
    return values.tolist()


def save_progress(state: TrainingState, folder: Path, *, config: Mapping[str, Any], run_id: str, is_best: bool) -> Path:
    """Write `last.pt` and give its path; the last but one stays as `previous.pt`. The best so far go to `best.pt` too.

    With several processes all must call it; the first one writes.
    """
    checkpoint = state.snapshot(config=config, run_id=run_id)
    last = folder / LAST
    if state.accelerator.is_main_process:
        if is_best:
            save_checkpoint(folder / BEST, checkpoint)
        save_checkpoint(last, checkpoint, previous=folder / PREVIOUS)
    state.accelerator.wait_for_everyone()
    return last


@contextmanager
def save_on_interrupt(state: TrainingState, folder: Path, *, config: Mapping[str, Any], run_id: str) -> Iterator[None]:
    """Around a training loop: keep others out of its folder, and save the batches done on Ctrl-C or a stop button.

    A training that starts anew moves the checkpoints of an earlier one aside.

    Raises:
        TrainingError: another process trains into the folder.
        KeyboardInterrupt: after saving.
    """
    with _lock(folder) if state.accelerator.is_main_process else nullcontext():
        if state.accelerator.is_main_process and not (state.history or state.batch_losses):
            _set_aside(folder)
        try:
            yield
        except KeyboardInterrupt:
            path = save_progress(state, folder, config=config, run_id=run_id, is_best=False)
            batches, epoch = len(state.batch_losses), state.epoch + 1
            print(f"Interrupted after {batches} batches of epoch {epoch}; saved {display_path(path)}.")
            raise


def load_progress(folder: Path, *, config: Mapping[str, Any]) -> Checkpoint:
    """Read `last.pt`, or the one before it, with a warning, where the last is damaged or missing.

    Raises:
        CheckpointError: if neither can be read, or `config` differs from the checkpoint's in what shapes the training.
    """
    try:
        checkpoint = load_checkpoint(folder / LAST)
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        warnings.warn(f"{error} Going on from {display_path(folder / PREVIOUS)}.", stacklevel=2)
        checkpoint = load_checkpoint(folder / PREVIOUS)
    before = {"init": "", "fold": 0, "bias_correction": False, **checkpoint.config}  # which the first ones do not hold
    changed = {
        key: f"{before.get(key)} there, {value} now"
        for key, value in config.items()
        if key not in FREE_SETTINGS and before.get(key) != value
    }
    if changed:
        raise CheckpointError(
            f"{display_path(folder / LAST)}: cannot go on with other settings than it was trained with: {changed}. "
            "Set them back, or train anew in another output folder."
        )
    return checkpoint


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a file of the folder locked; the system lets go of it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrainingError(
            f"{display_path(folder)}: found another training that writes there now, expected none. Wait for it, "
            "stop it, or choose another output_dir."
        ) from None
    except (NotImplementedError, OSError):  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def _set_aside(folder: Path) -> None:
    """Move the checkpoints of an earlier training into a folder of their own, so that none is lost.

    `history.csv` is written anew; the earlier one's rows are in its checkpoints.
    """
    checkpoints = [folder / name for name in (BEST, LAST, PREVIOUS)]
    earlier = [path for path in checkpoints if path.exists()]
    if not earlier:
        return
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    aside = folder / f"earlier-{number}"
    aside.mkdir()
    for path in earlier:
        path.rename(aside / path.name)
    print(f"Found checkpoints of an earlier training; moved them to {display_path(aside)}.")
