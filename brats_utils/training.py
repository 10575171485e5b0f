"""The training loop as a generator: it yields what happened, and the caller logs and saves."""

import itertools
import signal
import time
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
from monai.networks.nets import SegResNet
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from tqdm import tqdm

from brats_utils.inference import clean_regions, predict_logits
from brats_utils.labels import REGIONS
from brats_utils.loading import EpochBatches, derive_seed
from brats_utils.metrics import dice_per_region
from brats_utils.model import Checkpoint, CheckpointError, explain_out_of_memory, load_checkpoint, save_checkpoint
from brats_utils.paths import display_path

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
MIXED_PRECISION = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
FREE_SETTINGS = {
    "num_workers", "validation_intervals", "cache", "dataset_dir", "checkpoint_dir", "max_train_images_visualized",
    "max_val_images_visualized", "max_prediction_images_visualized",
}  # fmt: skip
"""What may change between an interruption and a resume."""


OUT_OF_MEMORY_REMEDY = "Lower roi_size or batch_size, through `overrides`, or take a smaller preset. Checkpoints that were saved are intact."


class TrainingError(RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


@dataclass
class TrainingState:
    """Everything that changes while training.

    Hugging Face Accelerate prepares the model and the optimiser: for mixed precision, and, where the program was
    started by `torchrun` or `notebook_launcher`, for training together with other processes.

    Attributes:
        model: the network, on its device.
        loss_fn: from (logits, regions) to a scalar.
        optimizer: updates the model.
        schedule: sets the learning rate, one call a step.
        precision: dtype for autocast; float32 means none. float16 comes with a gradient scaler.
        epoch: epochs finished, validation included.
        batch_losses: of the epoch that is not finished yet, a scalar a batch.
        learning_rate: of the last step.
        mean_dice: validation mean Dice of the last validation; NaN before the first.
        best_dice: best validation mean Dice so far.
        history: a row an epoch, for `plots.plot_history` and `history.csv`.
        accelerator: knows this process's rank and the others.
    """

    model: SegResNet
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    precision: torch.dtype
    epoch: int = 0
    batch_losses: list[torch.Tensor] = field(default_factory=list)
    learning_rate: float = 0.0
    mean_dice: float = float("nan")
    best_dice: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)
    accelerator: Accelerator = field(init=False)

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
        """Go on from a checkpoint of the same settings."""
        self.accelerator.unwrap_model(self.model).load_state_dict(dict(checkpoint.model))
        self.optimizer.load_state_dict(dict(checkpoint.optimizer))
        self.schedule.load_state_dict(dict(checkpoint.schedule))
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(dict(checkpoint.scaler))
        self.batch_losses = [torch.tensor(loss, device=self.accelerator.device) for loss in checkpoint.batch_losses]
        self.epoch, self.mean_dice, self.best_dice = checkpoint.epoch, checkpoint.mean_dice, checkpoint.best_dice
        self.history = list(checkpoint.history)


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did.

    Attributes:
        epoch: its number, from 1.
        batch_losses: training loss of each batch.
        learning_rate: of the epoch's last step.
        seconds: wall time of the training part.
        dice: (cases, 3) float64, validation Dice per case and region; None if this epoch had no validation.
        is_best: whether this validation's mean Dice is the best so far.
    """

    epoch: int
    batch_losses: list[float]
    learning_rate: float
    seconds: float
    dice: torch.Tensor | None
    is_best: bool

    @property
    def mean_train_loss(self) -> float:
        """Mean over the batches seen."""
        return sum(self.batch_losses) / len(self.batch_losses)

    @property
    def mean_dice(self) -> float:
        """Validation Dice, over cases and regions; NaN without a validation."""
        return float("nan") if self.dice is None else float(self.dice.mean())

    def metric_rows(self) -> list[dict[str, float]]:
        """Name what happened as W&B logs it: a row a batch, one for the epoch, one for the validation."""
        first = (self.epoch - 1) * len(self.batch_losses)
        rows: list[dict[str, float]] = [
            {"batch/batch_step": first + step, "batch/train_loss": loss}
            for step, loss in enumerate(self.batch_losses, start=1)
        ]
        rows.append(
            {
                "epoch/epoch_step": self.epoch,
                "epoch/mean_train_loss": self.mean_train_loss,
                "epoch/learning_rate": self.learning_rate,
                "epoch/seconds": self.seconds,
            }
        )
        if self.dice is not None:
            by_region = zip(REGIONS, self.dice.mean(0).tolist(), strict=True)
            rows.append(
                {"validation/validation_step": self.epoch, "validation/mean_dice": self.mean_dice}
                | {f"validation/mean_dice_{region.metric}": dice for region, dice in by_region}
            )
        return rows

    def history_row(self) -> dict[str, float]:
        """Summarise the epoch for `plots.plot_history`."""
        dice = [float("nan")] * len(REGIONS) if self.dice is None else self.dice.mean(0).tolist()
        return {
            "epoch": self.epoch,
            "mean_train_loss": self.mean_train_loss,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "mean_dice": self.mean_dice,
            **{f"dice_{region.name}": value for region, value in zip(REGIONS, dice, strict=True)},
        }

    def __str__(self) -> str:
        """One line for a log."""
        line = f"epoch {self.epoch:3}  loss {self.mean_train_loss:.3f}  {self.seconds:.1f} s"
        if self.dice is None:
            return line
        scores = "  ".join(f"{r.name} {d:.3f}" for r, d in zip(REGIONS, self.dice.mean(0).tolist(), strict=True))
        return f"{line}  validation Dice {self.mean_dice:.3f} ({scores}){'  best' if self.is_best else ''}"


def train_step(state: TrainingState, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Do one optimiser step.

    Args:
        state: is updated.
        batch: `image` (B, 4, X, Y, Z) float32, `label` (B, 3, X, Y, Z) bool.

    Returns:
        Scalar loss, detached and still on the device: reading it would make the GPU wait.
    """
    with explain_out_of_memory(OUT_OF_MEMORY_REMEDY):
        image = batch["image"].to(state.accelerator.device, non_blocking=True)
        regions = batch["label"].to(state.accelerator.device, non_blocking=True)
        state.optimizer.zero_grad(set_to_none=True)
        loss = state.loss_fn(state.model(image), regions)
        state.accelerator.backward(loss)
        state.optimizer.step()
    if not state.accelerator.optimizer_step_was_skipped:  # float16 skips a step whose gradients overflow
        state.schedule.step()
    return loss.detach()


def train_epoch(state: TrainingState, loader: DataLoader, *, seed: int) -> list[float]:
    """Train on every batch of an epoch, or on those that are left of it.

    Order, patches and dropout follow from the seed, the epoch and the batch, so that a training that was
    interrupted and one that was not do the same. Ctrl-C is heard between two batches.

    Returns:
        Loss of each batch of the epoch, averaged over all processes.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the state is whole and can be saved, or trained on.
        TrainingError: a loss that is not finite, with the ids of the cases in that batch.
    """
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    batches.epoch, batches.start = state.epoch, len(state.batch_losses)
    case_ids: list[list[str]] = [[]] * batches.start
    state.model.train()
    with _interrupt_between_batches() as interrupted:
        bar = tqdm(loader, f"Epoch {state.epoch + 1}", len(batches), initial=batches.start, leave=False)
        for batch in bar:
            torch.manual_seed(derive_seed(seed, state.epoch, len(state.batch_losses), state.accelerator.process_index))
            state.learning_rate = state.optimizer.param_groups[0]["lr"]
            loss = train_step(state, batch)
            state.batch_losses.append(loss)
            case_ids.append(list(batch["case_id"]))
            if interrupted:
                raise KeyboardInterrupt
    return read_losses(state, case_ids)


def read_losses(state: TrainingState, case_ids: list[list[str]]) -> list[float]:
    """Bring the losses of the unfinished epoch from the device, averaged over all processes.

    Args:
        state: has one loss a batch.
        case_ids: those of each batch, to name them if its loss is not finite.

    Raises:
        TrainingError: a loss is not finite.
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


def validate(
    state: TrainingState, loader: DataLoader, *, roi_size: tuple[int, int, int], spacing_mm: float
) -> torch.Tensor:
    """Score the model on whole volumes, with the same rules as for the test cases.

    Args:
        state: its model is set to evaluation mode.
        loader: batches of one case each; with several processes, the share of this one.
        roi_size: sliding window in voxels.
        spacing_mm: voxel size of the volumes.

    Returns:
        (cases, 3) float64 Dice of all cases, sorted by case id, channels in the order of `REGIONS`.
    """
    model = state.accelerator.unwrap_model(state.model).eval()
    scores = []
    for batch in loader:
        image = batch["image"].to(state.accelerator.device)
        logits = predict_logits(model, image, roi_size=roi_size, precision=state.precision)
        predicted = clean_regions(logits[0].cpu() > 0, voxel_ml=spacing_mm**3 / 1000)
        scores.append((batch["case_id"][0], dice_per_region(predicted, batch["label"][0])))
    return torch.stack([dice for _, dice in sorted(gather_object(scores), key=lambda score: score[0])])


def train_epochs(
    state: TrainingState,
    train_loader: DataLoader,
    val_loader: DataLoader,
    *,
    max_epochs: int,
    validation_intervals: int,
    roi_size: tuple[int, int, int],
    spacing_mm: float,
    seed: int,
) -> Iterator[EpochResult]:
    """Train, and validate now and then; the last epoch always is.

    Args:
        state: where to start from; is updated.
        train_loader: random patches, see `loading.build_train_loader`.
        val_loader: whole cases, one a batch.
        max_epochs: stop when as many are finished.
        validation_intervals: validate every n-th epoch.
        roi_size: sliding window of the validation, in voxels.
        spacing_mm: voxel size of the validation's volumes.
        seed: of every random choice.

    Yields:
        One result an epoch, when the state may be saved. It may be saved after a KeyboardInterrupt too.
    """
    while state.epoch < max_epochs:
        start = time.perf_counter()
        losses = train_epoch(state, train_loader, seed=seed)
        seconds = time.perf_counter() - start
        epoch, dice, is_best = state.epoch + 1, None, False
        if epoch % validation_intervals == 0 or epoch == max_epochs:
            dice = validate(state, val_loader, roi_size=roi_size, spacing_mm=spacing_mm)
            state.mean_dice = float(dice.mean())
            is_best = state.mean_dice > state.best_dice
            state.best_dice = max(state.best_dice, state.mean_dice)
        result = EpochResult(epoch, losses, state.learning_rate, seconds, dice, is_best)
        state.epoch, state.batch_losses = epoch, []
        state.history.append(result.history_row())
        yield result


def save_progress(state: TrainingState, folder: Path, *, config: Mapping[str, Any], run_id: str, is_best: bool) -> Path:
    """Write `last.pt`, and `best.pt` if these weights are the best so far; the last but one stays as `previous.pt`.

    With several processes all must call it; the first one writes.

    Returns:
        The path of `last.pt`.
    """
    checkpoint, last = state.snapshot(config=config, run_id=run_id), folder / LAST
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

    Args:
        folder: of the checkpoints.
        config: settings to go on with; those that shape the training must be the checkpoint's.

    Raises:
        CheckpointError: if neither can be read, or it was trained with other settings.
    """
    try:
        checkpoint = load_checkpoint(folder / LAST)
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        warnings.warn(f"{error} Going on from {display_path(folder / PREVIOUS)}.", stacklevel=2)
        checkpoint = load_checkpoint(folder / PREVIOUS)
    changed = {
        key: f"{checkpoint.config.get(key)} there, {value} now"
        for key, value in config.items()
        if key not in FREE_SETTINGS and checkpoint.config.get(key) != value
    }
    if changed:
        raise CheckpointError(
            f"{display_path(folder / LAST)}: cannot go on with other settings than it was trained with: {changed}. "
            "Set them back, or train anew in another output folder."
        )
    return checkpoint


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a file of the folder locked; the system lets go of it when the process ends, however it ends.

    The file stays: Windows cannot delete one that is open, and elsewhere another process may hold it by then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{display_path(folder)}: found another training that writes there now, expected none. Wait for it, "
                "stop it, or choose another output_dir."
            ) from None
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        yield


def _set_aside(folder: Path) -> None:
    """Move the checkpoints of an earlier training into a folder of their own, so that none is lost."""
    earlier = [path for name in (BEST, LAST, PREVIOUS) if (path := folder / name).exists()]
    if not earlier:
        return
    number = next(n for n in itertools.count(1) if not (folder / f"earlier-{n}").exists())
    aside = folder / f"earlier-{number}"
    aside.mkdir()
    for path in earlier:
        path.rename(aside / path.name)
    print(f"Found checkpoints of an earlier training; moved them to {display_path(aside)}.")


@contextmanager
def _interrupt_between_batches() -> Iterator[list[int]]:
    """Collect the first Ctrl-C in a list, which the loop asks after each batch; a second one is not waited with."""
    heard: list[int] = []

    def listen(number: int, _: Any) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    try:
        before = signal.signal(signal.SIGINT, listen)
    except ValueError:  # not in the main thread: nobody can interrupt
        yield heard
        return
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)
