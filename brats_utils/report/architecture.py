"""A drawing of the network: its levels, and the skip connections between them."""

import copy
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from monai.networks.nets import SegResNet

from brats_utils.labels import CHANNELS

Box = tuple[str, str, float, float, tuple[int, ...]]
"""Name, colour, place along x and y, and shape (channels and voxels) of a level."""


def plot_network(model: SegResNet, roi_size: Sequence[int]) -> Figure:
    """Draw the U of a SegResNet: at each level the channels and the voxels that a patch of `roi_size` has there."""
    encoder, decoder, logits = trace_shapes(model, roi_size)
    depth = len(encoder)
    # how far each level stands from the sides; the lowest is in the middle
    inwards = [0.55 * level for level in range(depth - 1)] + [3.0]
    boxes: list[Box] = [("patch", "#eeeeee", -1.3, depth, (len(CHANNELS), *roi_size))]
    for level, shape in enumerate(encoder):
        boxes.append(("encoder", "#cfe2f3", inwards[level], depth - level, shape))
    for level, shape in enumerate(reversed(decoder)):
        boxes.append(("decoder", "#d9ead3", 6 - inwards[level], depth - level, shape))
    boxes.append(("logits", "#eeeeee", 7.3, depth, logits))

    figure, axis = plt.subplots(figsize=(10, 3.6), layout="constrained")
    for name, color, x, y, shape in boxes:
        text = f"{name}\n{' × '.join(map(str, shape))}"
        axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox={"boxstyle": "round", "facecolor": color})
    for level in range(depth - 1):
        y = depth - level
        left, right = (inwards[level], y), (6 - inwards[level], y)
        below_left, below_right = (inwards[level + 1], y - 1), (6 - inwards[level + 1], y - 1)
        gap = 16 if level < depth - 2 else 44  # the way to the lowest is flat
        _draw_arrow(axis, left, right, line=":", gap=46)
        _draw_arrow(axis, left, below_left, line="-", gap=gap)
        _draw_arrow(axis, below_right, right, line="-", gap=gap)
    axis.set(xlim=(-2, 8), ylim=(0.5, depth + 0.5), title="channels × voxels at each level; dotted: skip connections")
    axis.set_axis_off()
    return figure


def trace_shapes(
    model: SegResNet, roi_size: Sequence[int]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], tuple[int, ...]]:
    """Find the shapes, channels first, at each level of the encoder and of the decoder, and of the logits."""
    shadow = copy.deepcopy(model).to("meta")  # knows shapes, computes nothing
    encoder: list[tuple[int, ...]] = []
    decoder: list[tuple[int, ...]] = []
    for layers, seen in ((shadow.down_layers, encoder), (shadow.up_layers, decoder)):
        for layer in layers:
            layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(tuple(out.shape[1:])))
    logits = shadow(torch.zeros(1, len(CHANNELS), *roi_size, device="meta"))
    return encoder, decoder, tuple(logits.shape[1:])


def _draw_arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], *, line: str, gap: float) -> None:
    """Draw an arrow between the middles of two boxes; `gap`, in points, keeps it out of them."""
    style = {"arrowstyle": "->", "linestyle": line, "shrinkA": gap, "shrinkB": gap}
    axis.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)
