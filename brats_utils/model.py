"""The network, its loss, optimiser and schedule; the device and precision to run it with."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from timeit import repeat

import torch
from monai.losses import DiceLoss
from monai.networks.nets import SegResNet
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from brats_utils.colab import has_usable_gpu
from brats_utils.labels import CHANNELS, REGIONS
from brats_utils.paths import say

ARCHITECTURE = dict(blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), in_channels=len(CHANNELS), out_channels=len(REGIONS))
"""What is the same in every network here. Source: Myronenko 2018, arXiv 1810.11654: depths of the encoder and decoder."""


def build_model(*, init_filters: int, dropout_prob: float) -> SegResNet:
    """Build SegResNet without the variational branch: 4 channels in, one logit a region out.

    `init_filters` is the width of the first layer, a multiple of 8; `dropout_prob` the share of its channels that are
    dropped while training.

    Source:
        Myronenko 2018, arXiv 1810.11654: 16 filters, dropout .2.
    """
    return SegResNet(init_filters=init_filters, dropout_prob=dropout_prob, **ARCHITECTURE)  # type: ignore[arg-type]


class Mirrored(nn.Module):
    """A network that was trained on images with other axes than RAS, to be used on RAS: it sees them mirrored."""

    def __init__(self, network: nn.Module, *, axes: str) -> None:
        super().__init__()
        self.network = network
        self.mirrored = [2 + index for index, letter in enumerate("RAS") if axes[index] != letter]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Turn (B, 4, X, Y, Z) with axes to R, A and S into (B, 3, X, Y, Z) logits, on the same voxels."""
        logits: torch.Tensor = self.network(image.flip(self.mirrored))
        return logits.flip(self.mirrored)


class RegionLoss(nn.Module):
    """Dice loss of the three regions, plus weighted binary cross-entropy.

    Cross-entropy gives every voxel a gradient from the first step on; Dice alone starts slowly.
    With `smooth_nr` 0, as in the classic recipe, a region that is empty in a patch has loss 1 and no gradient.
    Takes the settings of `monai.losses.DiceLoss`, and the weight of cross-entropy.
    """

    def __init__(self, *, bce_weight: float, **dice_settings: float | bool) -> None:
        super().__init__()
        self.dice = DiceLoss(**dice_settings)  # type: ignore[arg-type]
        self.bce = nn.BCEWithLogitsLoss()
        self.bce_weight = bce_weight

    def forward(self, logits: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Compute the loss in float32: half precision cannot sum a volume.

        Args:
            logits: (B, 3, X, Y, Z), any float dtype.
            regions: (B, 3, X, Y, Z) bool.

        Returns:
            Scalar float32.
        """
        logits, target = logits.float(), regions.float()
        loss = self.dice(logits, target)
        return loss + self.bce_weight * self.bce(logits, target) if self.bce_weight else loss


def build_optimizer(model: nn.Module, *, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Build `adam` (decay added to the gradient) or `adamw` (decay apart from it)."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, *, name: str, num_steps: int) -> LRScheduler:
    """Build `cosine` (annealing from the first step) or `one_cycle` (warm-up, then annealing); one call a step.

    The optimiser's learning rate is the highest it reaches; `num_steps` are those of the whole training. Source:
    Loshchilov 2017, arXiv 1608.03983; Smith 2018, arXiv 1708.07120.
    """
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    return OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=num_steps, pct_start=0.15)


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn PyTorch's word for too little memory, on a GPU or a CPU, into a `MemoryError` with what helps, in sentences."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not re.search("(out of|not enough) memory", str(error)):
            raise
        raise MemoryError(f"Out of memory: {str(error).splitlines()[0]} {remedy}") from error


def choose_device() -> torch.device:
    """Take the GPU if there is one; of several, under `torchrun`, the one that belongs to this process.

    Apple's is taken if `can_train` there; if not, the CPU is, and a line says so.
    """
    if has_usable_gpu():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() and can_train("mps") else "cpu")


@cache
def can_train(device: str) -> bool:
    """Try whether this torch has every operation of a training step on a device; which one lacks is said once."""
    try:
        with torch.random.fork_rng(devices=()):
            model = build_model(init_filters=8, dropout_prob=0.2).to(device)
            logits = model(torch.zeros(1, len(CHANNELS), 16, 16, 16, device=device))
            RegionLoss(bce_weight=1.0, sigmoid=True, batch=True)(logits, torch.zeros_like(logits).bool()).backward()
            build_optimizer(model, name="adamw", learning_rate=1e-3, weight_decay=0.0).step()
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        say(f"Device: the CPU, because torch {torch.__version__} cannot train on {device}: {reason}")
        return False
    return True


def choose_precision(device: torch.device) -> torch.dtype:
    """Pick the dtype for `torch.autocast`: bfloat16 where the hardware has it, float16 on older GPUs, float32 for none.

    A CPU is timed on one convolution: with bfloat16 units it is 2 to 5 times faster, without them the same code is slower,
    and no flag tells it portably. On one thread, and by the least disturbed of many timings: other work on the machine must
    not change what is chosen. Where float32 seems faster, it is timed once more.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type != "cpu":
        return torch.float32
    layer = nn.Conv3d(16, 16, 3, padding=1)
    image = torch.zeros(2, 16, 24, 24, 24)  # two: see WINDOWS_AT_ONCE
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    has_units = any(_is_bfloat16_faster(layer, image) for _ in range(2))
    torch.set_num_threads(threads)
    return torch.bfloat16 if has_units else torch.float32


def _is_bfloat16_faster(layer: nn.Module, image: torch.Tensor) -> bool:
    """Time a layer on the CPU in float32 and in bfloat16."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer(image)
            seconds[dtype] = min(repeat(lambda: layer(image), number=1, repeat=20))
    return seconds[torch.float32] > 1.3 * seconds[torch.bfloat16]


def choose_layout(device: torch.device, precision: torch.dtype) -> torch.memory_format:
    """Pick the memory layout of the weights in which a training step is fastest; the activations follow.

    In float32 a CPU is a fifth faster with the channels last; with bfloat16 units the other way is (docs/performance.md).
    """
    slow = device.type == "cpu" and precision == torch.float32
    return torch.channels_last_3d if slow else torch.contiguous_format
