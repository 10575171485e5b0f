"""The training loop as a generator: it yields what happened, and the caller logs and saves."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm import tqdm

from brats_utils.inference import predict_logits
from brats_utils.labels import REGIONS
from brats_utils.loading import EpochBatches, derive_seed
from brats_utils.metrics import dice_per_region
from brats_utils.model import explain_out_of_memory
from brats_utils.post_processing import postprocess_regions
from brats_utils.saving.resume import TrainingState, read_losses
from brats_utils.threads import follow_load

OUT_OF_MEMORY_REMEDY = "Lower roi_size or batch_size, through `overrides`, or take a smaller preset. Checkpoints that were saved are intact."


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did."""

    epoch: int  # its number, from 1
    batch_losses: list[float]  # training loss of each batch
    learning_rate: float  # of the epoch's last step
    seconds: float  # wall time of the training part
    dice: torch.Tensor | None  # (cases, 3) float64, validation Dice per case and region; None without a validation
    is_best: bool  # whether this validation's mean Dice is the best so far

    @property
    def mean_train_loss(self) -> float:
        """Mean over the batches seen."""
        return sum(self.batch_losses) / len(self.batch_losses)

    @property
    def mean_dice(self) -> float:
        """Validation Dice, over cases and regions; NaN without a validation."""
        return float("nan") if self.dice is None else float(self.dice.mean())

    @property
    def region_dice(self) -> list[float]:
        """Validation Dice of each region, over cases; NaN without a validation."""
        return [float("nan")] * len(REGIONS) if self.dice is None else self.dice.mean(0).tolist()

    def metric_rows(self) -> Iterator[dict[str, float]]:
        """Name what happened as W&B logs it: a row per batch, one for the epoch, one for the validation."""
        first = (self.epoch - 1) * len(self.batch_losses) + 1
        for step, loss in enumerate(self.batch_losses, start=first):
            yield {"batch/batch_step": step, "batch/train_loss": loss}
        yield {
            "epoch/epoch_step": self.epoch,
            "epoch/mean_train_loss": self.mean_train_loss,
            "epoch/learning_rate": self.learning_rate,
            "epoch/seconds": self.seconds,
        }
        if self.dice is not None:
            by_region = zip(REGIONS, self.region_dice, strict=True)
            scores = {f"validation/mean_dice_{region.metric}": dice for region, dice in by_region}
            yield {"validation/validation_step": self.epoch, "validation/mean_dice": self.mean_dice, **scores}

    def history_row(self) -> dict[str, float]:
        """Summarise the epoch for `charts.plot_history`."""
        return {
            "epoch": self.epoch,
            "mean_train_loss": self.mean_train_loss,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
            "mean_dice": self.mean_dice,
            **{f"dice_{region.name}": dice for region, dice in zip(REGIONS, self.region_dice, strict=True)},
        }

    def __str__(self) -> str:
        """One line for a log."""
        line = f"epoch {self.epoch:3}  loss {self.mean_train_loss:.3f}  {self.seconds:.1f} s"
        if self.dice is None:
            return line
        scores = "  ".join(f"{r.name} {d:.3f}" for r, d in zip(REGIONS, self.region_dice, strict=True))
        return f"{line}  validation Dice {self.mean_dice:.3f} ({scores}){'  best' if self.is_best else ''}"


def train_step(state: TrainingState, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Do one optimiser step on a batch: `image` (B, 4, X, Y, Z) float32, `label` (B, 3, X, Y, Z) bool.

    Gives the scalar loss, detached and still on the device: reading it would make the GPU wait.
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


def train_epoch(
    state: TrainingState, loader: DataLoader, *, seed: int, after_step: Callable[[], None] = lambda: None
) -> list[float]:
    """Train on every batch of an epoch, or on those that are left of it.

    Order, patches and dropout follow from the seed, the epoch and the batch, so that a training that was interrupted
    and one that was not do the same. Ctrl-C is heard between two batches. Gives the loss of each batch of the epoch,
    averaged over all processes.

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
            after_step()
    return read_losses(state, case_ids)


def validate(
    state: TrainingState, loader: DataLoader, *, roi_size: tuple[int, int, int], spacing_mm: float
) -> torch.Tensor:
    """Score the model, set to evaluation mode, on whole volumes, with the same rules as for the test cases.

    The loader gives one case a batch, and of several processes each its share; `roi_size` is the sliding window in
    voxels of `spacing_mm`. Gives (cases, 3) float64 Dice of all cases, sorted by case id, in the order of `REGIONS`.
    """
    model = state.accelerator.unwrap_model(state.model).eval()
    scores = []
    for batch in loader:
        image = batch["image"].to(state.accelerator.device)
        logits = predict_logits(model, image, roi_size=roi_size, precision=state.precision)
        predicted = postprocess_regions(logits[0].cpu() > 0, voxel_ml=spacing_mm**3 / 1000)
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

    Updates the state, which starts anywhere; `roi_size` is the sliding window of the validation in voxels of `spacing_mm`,
    and one in `validation_intervals` epochs is validated. The loaders are those of `loading`.

    Yields:
        One result an epoch, when the state may be saved. It may be saved after a KeyboardInterrupt too.
    """
    with follow_load() if state.accelerator.device.type == "cpu" else nullcontext(lambda: None) as adjust_threads:
        while state.epoch < max_epochs:
            start = time.perf_counter()
            losses = train_epoch(state, train_loader, seed=seed, after_step=adjust_threads)
            seconds = time.perf_counter() - start
            epoch = state.epoch + 1
            dice = None
            is_best = False
            if epoch % validation_intervals == 0 or epoch == max_epochs:
                dice = validate(state, val_loader, roi_size=roi_size, spacing_mm=spacing_mm)
                state.mean_dice = float(dice.mean())
                is_best = state.mean_dice > state.best_dice
                state.best_dice = max(state.best_dice, state.mean_dice)
            result = EpochResult(epoch, losses, state.learning_rate, seconds, dice, is_best)
            state.epoch, state.batch_losses = epoch, []
            state.history.append(result.history_row())
            yield result


@contextmanager
def _interrupt_between_batches() -> Iterator[list[int]]:
    """Collect the first Ctrl-C in a list, which the loop asks after each batch; a second one is not waited with."""
    heard: list[int] = []

    def listen(number: int, _: Any) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    main = threading.current_thread() is threading.main_thread()  # nobody can interrupt another
    before = signal.signal(signal.SIGINT, listen) if main else None
    try:
        yield heard
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
