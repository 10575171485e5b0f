"""Figures of the notebooks: upright axial slices, one colour a region, orientation stated."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from brats_utils.labels import CHANNELS, REGIONS, LabelSchema
from brats_utils.views import ORIENTATION, largest_slice, upright_slice, window_volume

WIDTH_PER_PANEL = 2.8
"""Inches."""

DARK = "#333333"
"""Background of all that shows region colours: the yellow vanishes on white."""

TISSUE_COLORS = {"edema": "#56B4E9", "necrotic": "#F0E442", "enhancing": "#D55E00"}
"""Colours of the tissues; each is that of the region it alone adds: WT, TC, ET."""


def plot_regions(
    image: torch.Tensor, regions: torch.Tensor, *, slice_idx: int | None = None, title: str = ""
) -> Figure:
    """Show the four channels of one slice, with the outline of every region on each.

    Args:
        image: (4, X, Y, Z) float in RAS orientation.
        regions: (3, X, Y, Z) bool, on the same grid.
        slice_idx: along Z; by default the one with the most tumour.
        title: of the figure.
    """
    slice_idx = largest_slice(regions) if slice_idx is None else slice_idx
    grey = upright_slice(window_volume(image), slice_idx)
    outlines = upright_slice(regions.numpy(), slice_idx)
    figure, axes = _panels(len(CHANNELS), title=f"{title}  slice {slice_idx}".strip())
    for axis, channel, picture in zip(axes, CHANNELS, grey, strict=True):
        _show(axis, picture, title=channel)
        _outline(axis, outlines)
    _add_legend(figure)
    return figure


def plot_comparison(
    image: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, slice_idx: int | None = None, title: str = ""
) -> Figure:
    """Show scan, truth and prediction of one slice side by side: FLAIR and T1gd bare, then filled regions on FLAIR.

    Args:
        image: (4, X, Y, Z) float in RAS orientation.
        truth: (3, X, Y, Z) bool.
        prediction: (3, X, Y, Z) bool.
        slice_idx: along Z; by default the one with the most true tumour.
        title: of the figure.
    """
    slice_idx = largest_slice(truth if truth.any() else prediction) if slice_idx is None else slice_idx
    flair, _, t1gd, _ = upright_slice(window_volume(image), slice_idx)
    figure, axes = _panels(4, title=f"{title}  slice {slice_idx}".strip())
    _show(axes[0], flair, title="FLAIR")
    _show(axes[1], t1gd, title="T1gd")
    for axis, name, regions in ((axes[2], "ground truth", truth), (axes[3], "prediction", prediction)):
        _show(axis, _fill(flair, upright_slice(regions.numpy(), slice_idx)), title=name)
    _add_legend(figure)
    return figure


def plot_prediction(
    image: torch.Tensor, prediction: torch.Tensor, *, slice_idx: int | None = None, title: str = ""
) -> Figure:
    """Show the four channels of one slice and the prediction filled on FLAIR: for scans without a truth.

    Args:
        image: (4, X, Y, Z) float in RAS orientation.
        prediction: (3, X, Y, Z) bool.
        slice_idx: along Z; by default the one with the most predicted tumour.
        title: of the figure.
    """
    slice_idx = largest_slice(prediction) if slice_idx is None else slice_idx
    grey = upright_slice(window_volume(image), slice_idx)
    figure, axes = _panels(len(CHANNELS) + 1, title=f"{title}  slice {slice_idx}".strip())
    for axis, channel, picture in zip(axes, CHANNELS, grey, strict=False):
        _show(axis, picture, title=channel)
    _show(axes[-1], _fill(grey[0], upright_slice(prediction.numpy(), slice_idx)), title="prediction")
    _add_legend(figure)
    return figure


def plot_uncertainty(
    image: torch.Tensor, spread: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, title: str = ""
) -> Figure:
    """Show where a prediction is unsure beside where it is wrong, on the slice with the most errors.

    Args:
        image: (4, X, Y, Z) float in RAS orientation.
        spread: (3, X, Y, Z) float, standard deviation of the probability.
        truth: (3, X, Y, Z) bool.
        prediction: (3, X, Y, Z) bool.
        title: of the figure.
    """
    wrong = truth ^ prediction
    slice_idx = largest_slice(wrong if wrong.any() else prediction)
    flair = upright_slice(window_volume(image), slice_idx)[0]
    figure, axes = _panels(3, title=f"{title}  slice {slice_idx}".strip())
    _show(axes[0], flair, title="FLAIR")
    _show(axes[1], _fill(flair, upright_slice(wrong.numpy(), slice_idx)), title="missed or invented")
    _show(axes[2], flair, title="spread of the probability")
    worst = upright_slice(spread.amax(0).numpy(), slice_idx)
    heat = axes[2].imshow(np.ma.masked_less(worst, 0.02), cmap="viridis", vmin=0, vmax=0.5)
    figure.colorbar(heat, ax=axes[2], shrink=0.7)
    _add_legend(figure)
    return figure


def plot_label_evidence(
    image: torch.Tensor, labels: torch.Tensor, *, schema: LabelSchema, slice_idx: int | None = None
) -> Figure:
    """Show T1gd with each label value outlined on its own, beside the distribution of T1gd in each.

    Args:
        image: (4, X, Y, Z) float, z-scored, RAS.
        labels: (X, Y, Z) integers of the schema.
        schema: the numbering.
        slice_idx: along Z; by default the one with the most enhancing tumour.
    """
    slice_idx = largest_slice(labels[None] == schema.enhancing) if slice_idx is None else slice_idx
    t1gd = image[CHANNELS.index("T1gd")]
    grey = upright_slice(window_volume(t1gd[None]), slice_idx)[0]
    tissues = {schema.edema: "edema", schema.necrotic: "necrotic", schema.enhancing: "enhancing"}
    figure, axes = _panels(5, title=f"T1gd  slice {slice_idx}")
    _show(axes[0], grey, title="T1gd")
    for axis, (value, tissue) in zip(axes[1:4], sorted(tissues.items()), strict=True):
        _show(axis, grey, title=f"label {value}: {schema.tissues[value]}")
        mask = upright_slice((labels == value).numpy(), slice_idx)
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=[TISSUE_COLORS[tissue]], linewidths=1.4)
        values = t1gd[labels == value].numpy()
        if values.size:
            bins = np.linspace(-3, 5, 60).tolist()
            axes[4].hist(
                values, bins=bins, density=True, histtype="step", lw=1.8, color=TISSUE_COLORS[tissue], label=str(value)
            )
    axes[4].set(title="T1gd by label", xlabel="z-score", yticks=[], facecolor=DARK)
    axes[4].legend(title="label", labelcolor="white", facecolor=DARK, fontsize=8).get_title().set_color("white")
    return figure


def plot_history(history: pd.DataFrame) -> Figure:
    """Plot the learning curves.

    Args:
        history: a row an epoch with columns `epoch`, `mean_train_loss`, `learning_rate`, and `dice_<region>`
            and `mean_dice` where the epoch was validated (NaN elsewhere).
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(history["epoch"], history["mean_train_loss"], color="black")
    left.set(title="Training loss", xlabel="epoch")
    middle.plot(history["epoch"], history["learning_rate"], color="black")
    middle.set(title="Learning rate", xlabel="epoch")
    validated = history.dropna(subset=["mean_dice"])
    for region in REGIONS:
        dice = validated[f"dice_{region.name}"]
        right.plot(validated["epoch"], dice, "o-", ms=3, color=region.color, label=region.name)
    right.plot(validated["epoch"], validated["mean_dice"], "--", color="white", label="mean")
    right.set(title="Validation Dice", xlabel="epoch", ylim=(0, 1), facecolor=DARK)
    right.legend(loc="lower right", labelcolor="white", facecolor=DARK)
    return figure


def plot_scores(table: pd.DataFrame) -> Figure:
    """Plot the spread of four metrics by region: a box, and a point a case; hollow where the truth lacks the region.

    Args:
        table: rows as `metrics.score_row` makes them.
    """
    shown = {
        "dice": "Dice",
        "hd95_mm": "HD95, mm",
        "volume_error_ml": "volume error, mL",
        "lesion_f1": "F1 over lesions",
    }
    figure, axes = plt.subplots(1, len(shown), figsize=(12, 3.2), layout="constrained")
    for axis, (metric, title) in zip(axes, shown.items(), strict=True):
        for position, region in enumerate(REGIONS):
            scores, present = table[f"{metric}_{region.name}"], table[f"has_{region.name}"]
            lines = {"color": "white", "lw": 1}
            axis.boxplot(
                scores, positions=[position], widths=0.6, showfliers=False, boxprops=lines, whiskerprops=lines,
                capprops=lines, medianprops=lines,
            )  # fmt: skip
            spread = position + np.linspace(-0.18, 0.18, len(table))
            faces = [region.color if has else DARK for has in present]
            axis.scatter(spread, scores, s=22, c=faces, edgecolors=region.color, zorder=3)
        axis.set(facecolor=DARK, title=title, xticks=range(len(REGIONS)))
        axis.set_xticklabels([region.name for region in REGIONS])
        if metric in ("dice", "lesion_f1"):
            axis.set_ylim(-0.03, 1.03)
    figure.suptitle("A point a case, hollow where the region is absent; the box holds the middle half", fontsize=10)
    return figure


def plot_trust(table: pd.DataFrame) -> Figure:
    """Plot the Dice that the network expects of itself against the Dice it got, a point a case and region.

    Args:
        table: rows with `expected_dice_<region>`, as `evaluation.evaluate_cases` gives them.
    """
    figure, axis = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    axis.plot([0, 1], [0, 1], ":", color="white", lw=1)
    for region in REGIONS:
        expected, scores = table[f"expected_dice_{region.name}"], table[f"dice_{region.name}"]
        axis.scatter(expected, scores, s=26, color=region.color, label=region.name)
    axis.set(facecolor=DARK, xlim=(0, 1), ylim=(-0.03, 1.03), xlabel="expected Dice", ylabel="Dice")
    axis.set_title("Does it know when it is wrong?", fontsize=10)
    axis.legend(labelcolor="white", facecolor=DARK, fontsize=8)
    return figure


def plot_calibration(counts: np.ndarray) -> Figure:
    """Plot the reliability curve of each region: of voxels given a probability, how many are tumour.

    Args:
        counts: (3, bins, 3), of `uncertainty.count_calibration`.
    """
    figure, axis = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    axis.plot([0, 1], [0, 1], ":", color="white", lw=1)
    for region, (voxels, confidence, tumour) in zip(REGIONS, np.moveaxis(counts, -1, 1), strict=True):
        filled = voxels > 0
        axis.plot(
            confidence[filled] / voxels[filled], tumour[filled] / voxels[filled], "o-", color=region.color,
            ms=4, label=region.name,
        )  # fmt: skip
    axis.set(facecolor=DARK, xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share that is tumour")
    axis.set_title("Below the dots: too sure of itself", fontsize=10)
    axis.legend(labelcolor="white", facecolor=DARK, fontsize=8)
    return figure


def render_png(figure: Figure, *, dpi: int = 100) -> bytes:
    """Draw a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def stack_figures(pictures: Sequence[bytes]) -> Image.Image:
    """Put PNG pictures under each other, on one white page."""
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    page = Image.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    for index, picture in enumerate(opened):
        page.paste(picture, ((page.width - picture.width) // 2, sum(p.height for p in opened[:index])))
    return page


def _panels(count: int, *, title: str) -> tuple[Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(WIDTH_PER_PANEL * count, 3.6), layout="constrained")
    figure.suptitle(f"{title}\n{ORIENTATION}", fontsize=10)
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
    handles = [
        Line2D([], [], color=r.color, lw=3, label=f"{r.name} ({r.title.replace('-', ' ').lower()})") for r in REGIONS
    ]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, facecolor=DARK)
    for text in legend.get_texts():
        text.set_color("white")
