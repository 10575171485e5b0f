"""The training loop as a generator: it yields what happened, and the caller logs and saves."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader
from monai.data.utils import set_rnd
from monai.networks.nets import SegResNet
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from brats_utils.inference import predict_logits
from brats_utils.labels import REGIONS
from brats_utils.metrics import dice_per_region
from brats_utils.model import Checkpoint, save_checkpoint


class TrainingError(RuntimeError):
    """Training cannot go on; the last checkpoint is intact."""


@dataclass
class TrainingState:
    """Everything that changes while training.

    Attributes:
        model: the network, on its device.
        loss_fn: from (logits, regions) to a scalar.
        optimizer: updates the model.
        schedule: sets the learning rate, one call a step.
        precision: dtype for autocast; float32 means none.
        epoch: epochs finished.
        mean_dice: validation mean Dice of the last validation; NaN before the first.
        best_dice: best validation mean Dice so far.
        scaler: keeps float16 gradients from vanishing; idle otherwise.
    """

    model: SegResNet
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    precision: torch.dtype
    epoch: int = 0
    mean_dice: float = float("nan")
    best_dice: float = -1.0
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def snapshot(self, *, config: Mapping[str, Any], run_id: str) -> Checkpoint:
        """Collect what a checkpoint holds; the tensors are shared, so save it before the next step."""
        return Checkpoint(
            model=self.model.state_dict(),
            config=config,
            epoch=self.epoch,
            mean_dice=self.mean_dice,
            best_dice=self.best_dice,
            run_id=run_id,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            scaler=self.scaler.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same settings."""
        self.model.load_state_dict(dict(checkpoint.model))
        self.optimizer.load_state_dict(dict(checkpoint.optimizer))
        self.schedule.load_state_dict(dict(checkpoint.schedule))
        self.scaler.load_state_dict(dict(checkpoint.scaler))
        self.epoch, self.mean_dice, self.best_dice = checkpoint.epoch, checkpoint.mean_dice, checkpoint.best_dice


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
    image = batch["image"].to(state.device, non_blocking=True)
    regions = batch["label"].to(state.device, non_blocking=True)
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(state.device.type, state.precision, enabled=state.precision != torch.float32):
        logits = state.model(image)
    loss = state.loss_fn(logits, regions)
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    return loss.detach()


def train_epoch(state: TrainingState, loader: DataLoader, *, seed: int) -> tuple[list[float], float]:
    """Train on every batch once.

    All random generators start from the seed and the epoch's number, so that a training that was
    interrupted and one that was not draw the same patches.

    Returns:
        Loss of each batch and the learning rate of the last step.

    Raises:
        TrainingError: a loss that is not finite, with the ids of the cases in that batch.
    """
    epoch_seed = (seed + 1_000_003 * state.epoch) % 2**32
    torch.manual_seed(epoch_seed)
    loader.generator.manual_seed(epoch_seed)
    set_rnd(loader.dataset, seed=epoch_seed)
    state.model.train()
    losses, case_ids, learning_rate = [], [], 0.0
    for batch in tqdm(loader, desc=f"Epoch {state.epoch + 1}", leave=False):
        learning_rate = state.optimizer.param_groups[0]["lr"]
        losses.append(train_step(state, batch))
        case_ids.append(batch["case_id"])
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values):
        if not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"Epoch {state.epoch + 1}, batch {step + 1}: the loss is {value} on cases {case_ids[step]}. "
                "Look at these cases, or lower initial_learning_rate; the last checkpoint is intact."
            )
    return values, learning_rate


def validate(state: TrainingState, loader: DataLoader, *, roi_size: tuple[int, int, int]) -> torch.Tensor:
    """Score the model on whole volumes.

    Args:
        state: its model is set to evaluation mode.
        loader: batches of one case each.
        roi_size: sliding window in voxels.

    Returns:
        (cases, 3) float64 Dice, in the order of the loader and of `REGIONS`.
    """
    state.model.eval()
    scores = []
    for batch in loader:
        image = batch["image"].to(state.device)
        logits = predict_logits(state.model, image, roi_size=roi_size, precision=state.precision)
        scores.append(dice_per_region(logits[0].cpu() > 0, batch["label"][0]))
    return torch.stack(scores)


def train_epochs(
    state: TrainingState,
    train_loader: DataLoader,
    val_loader: DataLoader,
    *,
    max_epochs: int,
    validation_intervals: int,
    roi_size: tuple[int, int, int],
    seed: int,
) -> Iterator[EpochResult]:
    """Train, and validate now and then; the last epoch always is.

    Args:
        state: where to start from; is updated.
        train_loader: random patches.
        val_loader: whole cases, one a batch.
        max_epochs: stop when as many are finished.
        validation_intervals: validate every n-th epoch.
        roi_size: sliding window of the validation, in voxels.
        seed: of every random choice.

    Yields:
        One result an epoch, when the state may be saved.
    """
    while state.epoch < max_epochs:
        start = time.perf_counter()
        losses, learning_rate = train_epoch(state, train_loader, seed=seed)
        seconds = time.perf_counter() - start
        state.epoch += 1
        dice, is_best = None, False
        if state.epoch % validation_intervals == 0 or state.epoch == max_epochs:
            dice = validate(state, val_loader, roi_size=roi_size)
            state.mean_dice = float(dice.mean())
            is_best = state.mean_dice > state.best_dice
            state.best_dice = max(state.best_dice, state.mean_dice)
        yield EpochResult(state.epoch, losses, learning_rate, seconds, dice, is_best)


def save_progress(state: TrainingState, folder: Path, *, config: Mapping[str, Any], run_id: str, is_best: bool) -> Path:
    """Write `last.pt`, and `best.pt` if these weights are the best so far.

    Returns:
        The path of `last.pt`.
    """
    checkpoint = state.snapshot(config=config, run_id=run_id)
    if is_best:
        save_checkpoint(folder / "best.pt", checkpoint)
    return save_checkpoint(folder / "last.pt", checkpoint)
