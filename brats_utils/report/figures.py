"""Pictures of scans: upright axial slices, one colour a region, orientation stated."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from brats_utils.labels import CHANNELS, REGIONS, LabelSchema
from brats_utils.report.slices import ORIENTATION, largest_slice, upright_slice, window_volume

WIDTH_PER_PANEL = 2.8
"""Inches."""

DARK = "#333333"
"""Background of all that shows region colours: the yellow vanishes on white."""

TISSUE_COLORS = {"edema": "#56B4E9", "necrotic": "#F0E442", "enhancing": "#D55E00"}
"""Colours of the tissues; each is that of the region it alone adds: WT, TC, ET."""


def plot_regions(image: torch.Tensor, regions: torch.Tensor, *, title: str = "") -> Figure:
    """Show the four channels of the slice with the most tumour, with the outline of every region on each.

    `image` is (4, X, Y, Z) float in RAS orientation, `regions` (3, X, Y, Z) bool.
    """
    slice_idx = largest_slice(regions)
    grey = upright_slice(window_volume(image), slice_idx)
    outlines = upright_slice(regions.numpy(), slice_idx)
    figure, axes = _panels(len(CHANNELS), title=title, slice_idx=slice_idx)
    for axis, channel, picture in zip(axes, CHANNELS, grey, strict=True):
        _show(axis, picture, title=channel)
        _outline(axis, outlines)
    _add_legend(figure)
    return figure


def plot_comparison(
    image: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, slice_idx: int | None = None, title: str = ""
) -> Figure:
    """Show one slice along Z, by default the one with the most true tumour: FLAIR and T1gd, then both masks on FLAIR.

    `image` is (4, X, Y, Z) float in RAS orientation, `truth` and `prediction` are (3, X, Y, Z) bool.
    """
    if slice_idx is None:
        slice_idx = largest_slice(truth if truth.any() else prediction)
    flair, _, t1gd, _ = upright_slice(window_volume(image), slice_idx)
    figure, axes = _panels(4, title=title, slice_idx=slice_idx)
    _show(axes[0], flair, title="FLAIR")
    _show(axes[1], t1gd, title="T1gd")
    for axis, name, regions in ((axes[2], "ground truth", truth), (axes[3], "prediction", prediction)):
        _show(axis, _fill(flair, upright_slice(regions.numpy(), slice_idx)), title=name)
    _add_legend(figure)
    return figure


def plot_prediction(image: torch.Tensor, prediction: torch.Tensor, *, title: str = "") -> Figure:
    """Show the slice with the most predicted tumour, four channels and the prediction: for scans without a truth.

    `image` is (4, X, Y, Z) float in RAS orientation, `prediction` (3, X, Y, Z) bool.
    """
    slice_idx = largest_slice(prediction)
    grey = upright_slice(window_volume(image), slice_idx)
    figure, axes = _panels(len(CHANNELS) + 1, title=title, slice_idx=slice_idx)
    for axis, channel, picture in zip(axes, CHANNELS, grey, strict=False):
        _show(axis, picture, title=channel)
    _show(axes[-1], _fill(grey[0], upright_slice(prediction.numpy(), slice_idx)), title="prediction")
    _add_legend(figure)
    return figure


def plot_uncertainty(
    image: torch.Tensor, spread: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, title: str = ""
) -> Figure:
    """Show where a prediction is unsure beside where it is wrong, on the slice with the most errors.

    `image` is (4, X, Y, Z) float in RAS orientation, `spread` (3, X, Y, Z) float, the standard deviation of the
    probability; `truth` and `prediction` are (3, X, Y, Z) bool.
    """
    wrong = truth ^ prediction
    slice_idx = largest_slice(wrong if wrong.any() else prediction)
    flair = upright_slice(window_volume(image), slice_idx)[0]
    figure, axes = _panels(3, title=title, slice_idx=slice_idx)
    _show(axes[0], flair, title="FLAIR")
    _show(axes[1], _fill(flair, upright_slice(wrong.numpy(), slice_idx)), title="missed or invented")
    _show(axes[2], flair, title="spread of the probability")
    worst = upright_slice(spread.amax(0).numpy(), slice_idx)
    heat = axes[2].imshow(np.ma.masked_less(worst, 0.02), cmap="viridis", vmin=0, vmax=0.5)
    figure.colorbar(heat, ax=axes[2], shrink=0.7)
    _add_legend(figure)
    return figure


def plot_label_evidence(image: torch.Tensor, labels: torch.Tensor, *, schema: LabelSchema) -> Figure:
    """Show T1gd with each label value outlined on its own, beside the distribution of T1gd in each.

    The slice is the one with the most enhancing tumour. `image` is (4, X, Y, Z) float, z-scored, in RAS orientation,
    `labels` (X, Y, Z) integers of the schema.
    """
    slice_idx = largest_slice(labels[None] == schema.enhancing)
    t1gd = image[CHANNELS.index("T1gd")]
    grey = upright_slice(window_volume(t1gd[None]), slice_idx)[0]
    tissues = {schema.edema: "edema", schema.necrotic: "necrotic", schema.enhancing: "enhancing"}
    figure, axes = _panels(5, title="T1gd", slice_idx=slice_idx)
    _show(axes[0], grey, title="T1gd")
    for axis, (value, tissue) in zip(axes[1:4], sorted(tissues.items()), strict=True):
        _show(axis, grey, title=f"label {value}: {schema.tissues[value]}")
        mask = upright_slice((labels == value).numpy(), slice_idx)
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=[TISSUE_COLORS[tissue]], linewidths=1.4)
        values = t1gd[labels == value].numpy()
        if values.size:
            axes[4].hist(
                values, bins=np.linspace(-3, 5, 60).tolist(), density=True, histtype="step", lw=1.8,
                color=TISSUE_COLORS[tissue], label=str(value),
            )  # fmt: skip
    axes[4].set(title="T1gd by label", xlabel="z-score", yticks=[], facecolor=DARK)
    axes[4].legend(title="label", labelcolor="white", facecolor=DARK, fontsize=8).get_title().set_color("white")
    return figure


def render_png(figure: Figure) -> bytes:
    """Draw a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


def stack_figures(pictures: Sequence[bytes]) -> Image.Image:
    """Put PNG pictures under each other, on one white page."""
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    page = Image.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    for index, picture in enumerate(opened):
        page.paste(picture, ((page.width - picture.width) // 2, sum(p.height for p in opened[:index])))
    return page


def _panels(count: int, *, title: str, slice_idx: int) -> tuple[Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(WIDTH_PER_PANEL * count, 3.6), layout="constrained")
    figure.suptitle(f"{title}  slice {slice_idx}".strip() + f"\n{ORIENTATION}", fontsize=10)
    return figure, axes


def _show(axis: Axes, picture: np.ndarray, *, title: str) -> None:
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def _outline(axis: Axes, regions: np.ndarray) -> None:
    for index in (1, 0, 2):  # from the outside in
        if regions[index].any():
            axis.contour(regions[index], levels=[0.5], colors=[REGIONS[index].color], linewidths=1.2)


def _fill(grey: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Blend the regions into a grey slice: (Y, X) and (3, Y, X) to (Y, X, 3) uint8."""
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(float)
    for index in (1, 0, 2):
        color = 255 * np.array(to_rgb(REGIONS[index].color))
        picture[regions[index]] = 0.45 * grey[regions[index], None] + 0.55 * color
    return picture.astype(np.uint8)


def _add_legend(figure: Figure) -> None:
    names = [f"{region.name} ({region.title.replace('-', ' ').lower()})" for region in REGIONS]
    lines = [Line2D([], [], color=region.color, lw=3) for region in REGIONS]
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize=9, facecolor=DARK, labelcolor="white")
