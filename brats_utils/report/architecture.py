"""A drawing of the network: its levels, and the skip connections between them."""

import copy
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from monai.networks.nets import SegResNet

from brats_utils.labels import CHANNELS


def plot_network(model: SegResNet, roi_size: Sequence[int]) -> Figure:
    """Draw the U of a SegResNet: at each level the channels and the voxels that a patch of `roi_size` has there."""
    shadow = copy.deepcopy(model).to("meta")  # knows shapes, computes nothing
    shapes: dict[str, list[tuple[int, ...]]] = {"encoder": [], "decoder": []}
    for side, layers in (("encoder", shadow.down_layers), ("decoder", shadow.up_layers)):
        for layer in layers:
            layer.register_forward_hook(lambda _, __, out, seen=shapes[side]: seen.append(tuple(out.shape[1:])))
    logits = shadow(torch.zeros(1, len(CHANNELS), *roi_size, device="meta"))
    depth = len(shapes["encoder"])
    # how far each level stands from the sides; the lowest is in the middle
    inwards = [*(0.55 * n for n in range(depth - 1)), 3.0]
    boxes = [("patch", "#eeeeee", -1.3, depth, (len(CHANNELS), *roi_size))]
    boxes += [("encoder", "#cfe2f3", inwards[n], depth - n, shape) for n, shape in enumerate(shapes["encoder"])]
    boxes += [("decoder", "#d9ead3", 6 - inwards[n], depth - n, s) for n, s in enumerate(shapes["decoder"][::-1])]
    boxes += [("logits", "#eeeeee", 7.3, depth, tuple(logits.shape[1:]))]
    figure, axis = plt.subplots(figsize=(10, 3.6), layout="constrained")
    for name, color, x, y, shape in boxes:
        text, frame = f"{name}\n{' × '.join(map(str, shape))}", {"boxstyle": "round", "facecolor": color}
        axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=frame)
    for n in range(depth - 1):
        left, right = (inwards[n], depth - n), (6 - inwards[n], depth - n)
        down, up = (inwards[n + 1], depth - n - 1), (6 - inwards[n + 1], depth - n - 1)
        gap = 16 if n < depth - 2 else 44  # the way to the lowest is flat
        for start, end, line, room in ((left, right, ":", 46), (left, down, "-", gap), (up, right, "-", gap)):
            style = {"arrowstyle": "->", "linestyle": line, "shrinkA": room, "shrinkB": room}
            axis.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)
    axis.set(xlim=(-2, 8), ylim=(0.5, depth + 0.5), title="channels × voxels at each level; dotted: skip connections")
    axis.set_axis_off()
    return figure
