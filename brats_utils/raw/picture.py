"""The picture of a preparation: a person sees in three seconds whether it worked."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from brats_utils.report.slices import ORIENTATION

TILES = 6
"""Of the checkerboard along the shorter side."""

OUTLINE = "#56B4E9"
"""Of the brain: a colour of Okabe and Ito that no region has."""


def plot_preparation(heads: Mapping[str, np.ndarray], brain: np.ndarray, *, reference: str) -> Figure:
    """Show each scan on the prepared grid: the outline of the brain, and a checkerboard with the reference, from above and aside.

    Args:
        heads: (X, Y, Z) float32 by channel, skull and all, axes left, posterior, superior.
        brain: (X, Y, Z) bool.
        reference: the channel that the others were brought to.
    """
    middle = [round(place) for place in ndimage.center_of_mass(brain)]
    grey = {name: _window(head, brain) for name, head in heads.items()}
    views = {
        "axial": {name: volume[:, :, middle[2]].T for name, volume in grey.items()},
        "sagittal": {name: volume[middle[0]].T[::-1] for name, volume in grey.items()},
    }
    outline = brain[:, :, middle[2]].T
    rows = ("brain", "axial", "sagittal")
    heights = [views["axial" if row == "brain" else row][reference].shape[0] for row in rows]
    figure, axes = plt.subplots(
        3, len(heads), figsize=(2.6 * len(heads), 2.6 * sum(heights) / outline.shape[1] + 0.8), layout="constrained",
        height_ratios=heights, squeeze=False,
    )  # fmt: skip
    title = f"Outline of the brain; below, tiles of each scan and of {reference}: edges should run on"
    figure.suptitle(f"{title}\n{ORIENTATION}; sagittal: anterior on the left", size=10)
    for column, name in zip(axes.T, heads, strict=True):
        for axis, row in zip(column, rows, strict=True):
            view = views["axial" if row == "brain" else row]
            picture = view[name] if row == "brain" else mix_tiles(view[name], view[reference])
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
        column[0].contour(outline, levels=[0.5], colors=[OUTLINE], linewidths=1.2)
        column[0].set_title(name, fontsize=10)
        column[1].set_title("reference" if name == reference else f"{name} / {reference}", fontsize=10)
    return figure


def _window(head: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """8-bit grey with the window of the brain: fat is so bright that all else would be dark beside it."""
    low, high = np.percentile(head[brain], [0.5, 99.5])
    return (np.clip((head - low) / max(high - low, 1e-6), 0, 1) * 235 + 20 * (head > 0)).astype(np.uint8)


def mix_tiles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A checkerboard of two pictures of one shape: where their edges run on from tile to tile, they lie on each other."""
    side = max(1, min(one.shape) // TILES)
    rows, columns = np.indices(one.shape) // side
    return np.where((rows + columns) % 2 == 0, one, other)
