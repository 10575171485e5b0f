"""Seconds an optimiser step, at equal batch and patch."""

import copy
from collections.abc import Callable

import torch

from benchmarks import classic
from benchmarks.common import print_table, time_interleaved
from brats_utils.model import RegionLoss, build_model, build_optimizer, build_schedule, choose_device, choose_precision
from brats_utils.saving.resume import TrainingState
from brats_utils.training import train_step

SETTINGS = {
    "laptop: 4 x 48^3, 8 filters": (4, (48, 48, 48), 8),
    "1 x 96^3, 16 filters": (1, (96, 96, 96), 16),
}
GPU_SETTINGS = {
    "1 x 128^3, 16 filters": (1, (128, 128, 128), 16),
    "1 x 224x224x144, 16 filters": (1, (224, 224, 144), 16),
}


def main() -> None:
    """Compare the classic step with ours, and with what else might have paid."""
    device = choose_device()
    for name, (batch_size, roi_size, init_filters) in (GPU_SETTINGS if device.type == "cuda" else SETTINGS).items():
        model = build_model(init_filters=init_filters, dropout_prob=0.0).to(device)
        batch = {
            "image": torch.randn(batch_size, 4, *roi_size, device=device),
            "label": torch.rand(batch_size, 3, *roi_size, device=device) > 0.7,
        }
        contenders = build_contenders(model, batch, device)
        seconds = time_interleaved(contenders, repeats=7)
        print_table(
            f"Step, {name}",
            ["recipe", "seconds per step", "classic / this"],
            [(kind, f"{value:.3f}", f"{seconds['classic'] / value:.2f}") for kind, value in seconds.items()],
        )


def build_contenders(model, batch, device: torch.device) -> dict[str, Callable[[], object]]:
    """Give each contender a copy of the network."""
    trainer = classic.Trainer(copy.deepcopy(model), num_epochs=1)
    fast = choose_precision(device)

    def ours(precision: torch.dtype, *, prepare: Callable = lambda network: network) -> Callable[[], object]:
        network = prepare(copy.deepcopy(model).train())
        optimizer = build_optimizer(network, name="adamw", learning_rate=1e-4, weight_decay=1e-5)
        loss = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, "squared_pred": True, "to_onehot_y": False, "sigmoid": True}
        state = TrainingState(
            model=network,
            loss_fn=RegionLoss(**loss, batch=True, bce_weight=1.0),
            optimizer=optimizer,
            schedule=build_schedule(optimizer, name="one_cycle", num_steps=10_000),
            precision=precision,
        )
        return lambda: train_step(state, batch).item()

    def channels_last(network: torch.nn.Module) -> torch.nn.Module:
        return network.to(memory_format=torch.channels_last_3d)

    contenders = {"classic": lambda: trainer.step(batch)}
    for precision in sorted({torch.float32, fast}, key=str):
        name = str(precision).removeprefix("torch.")
        contenders[f"ours, {name}"] = ours(precision)
        contenders[f"ours, {name}, channels last"] = ours(precision, prepare=channels_last)
    if device.type == "cuda":  # on a CPU with bfloat16, torch 2.13 fails to compile 3D convolutions
        contenders["ours, torch.compile"] = ours(fast, prepare=torch.compile)
    return contenders
