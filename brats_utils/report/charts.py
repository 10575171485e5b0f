"""Charts of numbers: learning curves, scores, and how far a prediction may be trusted."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brats_utils.labels import REGIONS
from brats_utils.report.drawing import DARK


def plot_history(history: pd.DataFrame) -> Figure:
    """Plot the learning curves of a history, a row per epoch as in `history.csv`; NaN where an epoch was not validated."""
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
    """Plot the spread of four metrics of `metrics.score_row` by region: a box, and a point per case.

    A point is hollow where the region is absent from the truth.
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
            scores, line = table[f"{metric}_{region.name}"], {"color": "white", "lw": 1}
            lines = dict.fromkeys(("boxprops", "whiskerprops", "capprops", "medianprops"), line)
            axis.boxplot(scores.dropna(), positions=[position], widths=0.6, showfliers=False, **lines)
            spread = position + np.linspace(-0.18, 0.18, len(table))
            faces = [region.color if has else DARK for has in table[f"has_{region.name}"]]
            axis.scatter(spread, scores, s=22, c=faces, edgecolors=region.color, zorder=3)
        axis.set(facecolor=DARK, title=title)
        axis.set_xticks(range(len(REGIONS)), [region.name for region in REGIONS])
        if metric in ("dice", "lesion_f1"):
            axis.set_ylim(-0.03, 1.03)
        if metric == "hd95_mm":  # the 374 mm of a missed region would press all else together
            axis.set(yscale="symlog", ylim=(-0.5, 600))
            axis.set_yticks([0, 1, 10, 100, 374], ["0", "1", "10", "100", "374"])
    figure.suptitle("One point per case, hollow where the region is absent; the box holds the middle half", fontsize=10)
    return figure


def plot_trust(table: pd.DataFrame) -> Figure:
    """Plot the Dice that the network expects of itself against the Dice it got, a point per case and region.

    The table is that of `evaluation.evaluate_cases`, with `expected_dice_<region>`.
    """
    figure, axis = _unit_square(xlabel="expected Dice", ylabel="Dice", ylim=(-0.03, 1.03))
    for region in REGIONS:
        expected, scores = table[f"expected_dice_{region.name}"], table[f"dice_{region.name}"]
        axis.scatter(expected, scores, s=26, color=region.color, label=region.name)
    axis.set_title("Does it know when it is wrong?", fontsize=10)
    axis.legend(labelcolor="white", facecolor=DARK, fontsize=8)
    return figure


def plot_calibration(counts: np.ndarray) -> Figure:
    """Plot the reliability curve of each region: of voxels given a probability, how many are tumour.

    `counts` is (3, bins, 3), see `uncertainty.count_calibration`.
    """
    figure, axis = _unit_square(xlabel="predicted probability", ylabel="share that is tumour", ylim=(0, 1))
    for region, bins in zip(REGIONS, counts, strict=True):
        voxels, confidence, tumour = bins[bins[:, 0] > 0].T
        axis.plot(confidence / voxels, tumour / voxels, "o-", color=region.color, ms=4, label=region.name)
    axis.set_title("Below the dotted line: rarer than predicted", fontsize=10)
    axis.legend(labelcolor="white", facecolor=DARK, fontsize=8)
    return figure


def _unit_square(**settings: Any) -> tuple[Figure, Axes]:
    """Start a chart of one share against another: a dotted line where they are equal."""
    figure, axis = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    axis.set(facecolor=DARK, xlim=(0, 1), **settings)
    axis.plot([0, 1], [0, 1], ":", color="white", lw=1)
    return figure, axis


def plot_folds(folds: Sequence[Sequence[str]], *, test: Sequence[str]) -> Figure:
    """Show who is where in a cross-validation: a row a training, a column a case.

    `folds` are the case ids of each fold, as `split.read_folds` gives them, `test` those that no training sees.
    """
    shades = {"train": "#999999", "val": "#56B4E9", "test": "#000000"}  # Okabe-Ito's sky blue, between grey and black
    sizes = [len(fold) for fold in folds]
    starts = np.cumsum([0, *sizes])
    figure, axis = plt.subplots(figsize=(9, 2.4), layout="constrained")
    for row in range(len(folds)):
        for column, (start, size) in enumerate(zip(starts, sizes, strict=False)):
            part = "val" if column == row else "train"
            axis.barh(row, size, left=start, height=0.8, color=shades[part], edgecolor="white")
        axis.barh(row, len(test), left=starts[-1], height=0.8, color=shades["test"], edgecolor="white")
    axis.set_yticks(range(len(folds)), [f"fold {row + 1}" for row in range(len(folds))])
    axis.set(title="Five trainings: which cases are held out", xlabel="cases", xlim=(0, starts[-1] + len(test)))
    axis.invert_yaxis()
    handles = [Patch(color=color, label=part) for part, color in shades.items()]
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
