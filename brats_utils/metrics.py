"""Scores per case and region, with BraTS 2023's rules for regions that are not there.

A prediction and its truth have one shape, (3, X, Y, Z) bool with channels in the order of `REGIONS` or (X, Y, Z) of one
region; `spacing_mm` is the size of a voxel along X, Y and Z.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_dice
from scipy import ndimage, stats

from brats_utils.cases.geometry import find_box
from brats_utils.labels import REGIONS

Row = dict[str, float | int | bool | str]
Summary = dict[str, float | int | None]

METRICS = {
    **dict.fromkeys(("dice", "hd95_mm", "sensitivity", "specificity", "lesion_dice", "lesion_hd95_mm"), "BraTS 2023"),
    "lesion_f1": "ours, on lesions of BraTS 2023",
    "nsd": "BraTS 2026",
    "volume_error_ml": "ours",
}
"""What `score_row` says of each region and `summarise_scores` averages, and whose definition it follows."""

MIN_INTERVAL_CASES = 3
"""Fewer cases give no interval: drawn anew, they say nothing of how other cases would score."""

WORST_DISTANCE_MM = 374.0
"""HD95 where only one of two masks is empty: the diagonal of a 240 x 240 x 155 mm scan. Source: BraTS 2023."""

NSD_TOLERANCE_MM = 0.5
"""Surfaces this near are taken for one. Source: `global_nsd` of brats-evaluation 0.0.10, BraTS 2026; its `lesionwise_nsd`
allows 1 mm, on a grid of 1 mm."""

LESION_DILATION_MM = 3.0
LESION_MIN_MM3 = 50.0
"""True components with up to twice the one between them are one lesion; those no larger than the other are not scored.
Source: BraTS 2023, adult glioma, github.com/rachitsaluja/BraTS-2023-Metrics."""

NEIGHBOURS = np.ones((3, 3, 3))
"""Of a voxel in a connected component: all 26 that touch it."""


def dice_per_region(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Compute the Dice score of each region of one case.

    An empty region scores 1 if the prediction is empty too and 0 if it is not, so that a
    false positive costs something. `monai.metrics.DiceMetric(ignore_empty=True)` skips such cases and hides it. Source: the
    BraTS challenges up to 2023, e.g. Bakas 2018, arXiv 1811.02629; 2026 leaves empty regions out.

    Both are (R, X, Y, Z) bool; shapes that differ are a `ValueError`. Gives (R,) float64 in [0, 1].
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"Found a prediction of shape {tuple(prediction.shape)}, expected {tuple(truth.shape)}.")
    return compute_dice(prediction[None].bool(), truth[None].bool(), ignore_empty=False)[0].double()


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Estimate the 95% confidence interval of a mean by drawing the cases anew, 2000 times from a fixed seed.

    Takes a score per case. Gives None for both bounds with fewer than `MIN_INTERVAL_CASES` cases. Source: percentile
    bootstrap, Efron and Tibshirani 1993, chapter 13.
    """
    if len(values) < MIN_INTERVAL_CASES:
        return None, None
    drawn = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def score_surfaces(prediction: np.ndarray, truth: np.ndarray, *, spacing_mm: Sequence[float]) -> Row:
    """Score how near the surfaces of two (X, Y, Z) masks lie to each other: the voxels with a face to the outside.

    Returns:
        `hd95_mm`, the 95th percentile of the distances, the larger of both directions (2026 pools them): 0 where both
        are empty, `WORST_DISTANCE_MM` where one is. `nsd`, the normalized surface Dice, the part of a surface within
        `NSD_TOLERANCE_MM` of the other, mean of both directions: 1 where both are empty, 0 where one is. MONAI 1.6.1 has
        the first with a warning of its own, and the second with the larger surface weighing more.
    """
    if not (prediction.any() and truth.any()):
        empty = not (prediction.any() or truth.any())
        return {"hd95_mm": 0.0 if empty else WORST_DISTANCE_MM, "nsd": float(empty)}
    (box,) = ndimage.find_objects((prediction | truth).view(np.uint8))
    surfaces = []
    for mask in (prediction, truth):
        padded = np.pad(mask[box], 1)
        surfaces.append(padded & ~ndimage.binary_erosion(padded))
    to_prediction, to_truth = (ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces)
    of_prediction, of_truth = surfaces
    directions = to_truth[of_prediction], to_prediction[of_truth]
    return {
        "hd95_mm": max(float(np.percentile(distances, 95)) for distances in directions),
        "nsd": sum(float((distances <= NSD_TOLERANCE_MM).mean()) for distances in directions) / 2,
    }


def score_lesions(prediction: torch.Tensor, truth: torch.Tensor, *, spacing_mm: Sequence[float]) -> Row:
    """Score one (X, Y, Z) region lesion by lesion, so that a missed small lesion counts as much as a large one.

    The true mask is dilated, and what then hangs together is one lesion. Each component of the prediction that touches
    the dilated lesion belongs to it. A lesion that none touches is a false negative; a component that touches none is a false positive.
    Source: BraTS 2023, see `LESION_DILATION_MM`. The challenge dilates three times by a voxel of 1 mm and its 18
    neighbours. On other grids the dilation is the same in mm along each axis, whatever the size of the voxels: those
    over 1 mm are divided first, and the steps follow the size. At 1 mm it is the challenge's own.

    Returns:
        `lesion_dice`: the sum of the lesions' Dice, divided by true and false-positive lesions together; `lesion_hd95_mm`,
        likewise, with `WORST_DISTANCE_MM` for a false negative or a false positive; `lesion_f1`; and the counts `lesions_found`,
        `lesions_missed` and `lesions_invented`. Without any lesion the scores are 1, 0 mm and 1.
    """
    predicted, true, fine_mm = _refine(prediction, truth, spacing_mm=spacing_mm)
    dilated = _dilate(true, _dilation_voxels(fine_mm))
    lesions, num_lesions = ndimage.label(dilated, NEIGHBOURS)
    components, num_components = ndimage.label(predicted, NEIGHBOURS)
    dice: list[float] = []
    hd95: list[float] = []
    missed = 0
    matched: set[int] = set()  # components that touch a lesion
    for lesion in range(1, num_lesions + 1):
        inside = lesions == lesion
        here = true & inside
        touching = set(np.unique(components[inside]).tolist()) - {0}
        matched |= touching
        volume_mm3 = int(here.sum()) * float(np.prod(fine_mm))
        if volume_mm3 <= LESION_MIN_MM3:
            continue
        theirs = np.isin(components, sorted(touching))
        overlap = int((theirs & here).sum())
        dice.append(2 * overlap / (int(here.sum()) + int(theirs.sum())))
        hd95.append(float(score_surfaces(theirs, here, spacing_mm=fine_mm.tolist())["hd95_mm"]))
        if not touching:
            missed += 1
    found = len(dice) - missed
    false_positives = num_components - len(matched)
    counts: Row = {"lesions_found": found, "lesions_missed": missed, "lesions_invented": false_positives}
    count = len(dice) + false_positives
    if count == 0:
        return {"lesion_dice": 1.0, "lesion_hd95_mm": 0.0, "lesion_f1": 1.0, **counts}
    return {
        "lesion_dice": sum(dice) / count,
        "lesion_hd95_mm": (sum(hd95) + false_positives * WORST_DISTANCE_MM) / count,
        "lesion_f1": 2 * found / (2 * found + missed + false_positives),
        **counts,
    }


def _refine(
    prediction: torch.Tensor, truth: torch.Tensor, *, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut both masks, (X, Y, Z), to the box around them, and divide voxels of well over 1 mm.

    Returns:
        (x, y, z) bool of both, with room to dilate, and the size of their voxels in mm.
    """
    parts = np.ceil(np.array(spacing_mm) / 1.05).astype(int)  # of a voxel, so that none is well over 1 mm
    fine_mm = np.array(spacing_mm) / parts
    margin = _dilation_voxels(fine_mm).max()
    box = find_box(prediction.bool() | truth.bool())
    refined = []
    for mask in (prediction, truth):
        voxels = mask[box].bool().numpy()
        for axis, count in enumerate(parts):
            voxels = voxels.repeat(count, axis)
        refined.append(np.pad(voxels, margin))
    return refined[0], refined[1], fine_mm


def _dilation_voxels(spacing_mm: np.ndarray) -> np.ndarray:
    """How many voxels `LESION_DILATION_MM` are along each axis."""
    return np.round(LESION_DILATION_MM / spacing_mm).astype(int)


def score_row(
    case_id: str,
    prediction: torch.Tensor,
    truth: torch.Tensor,
    *,
    spacing_mm: Sequence[float],
    known: Sequence[bool] = (True, True, True),
) -> Row:
    """Score one case, (3, X, Y, Z) prediction and truth, as a flat row.

    Returns:
        `case_id` and, for each region, `has_<region>` (whether the truth has it), `<metric>_<region>` for each of
        `METRICS`, `volume_ml_<region>` (of the truth) and the counts of `score_lesions`. The volume error is prediction
        less truth. Sensitivity is 1 where both are empty and 0 where the prediction alone has tumour, as in BraTS. Of a
        region that is not `known` from the label, all scores are NaN.
    """
    row: Row = {"case_id": case_id}
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    dice = dice_per_region(prediction, truth)
    for index, region in enumerate(REGIONS):
        predicted, true = prediction[index].bool(), truth[index].bool()
        hit = int((predicted & true).sum())
        num_predicted = int(predicted.sum())
        num_true = int(true.sum())
        scores: Row = {
            "has": num_true > 0,
            "dice": round(float(dice[index]), 4),
            **score_surfaces(predicted.numpy(), true.numpy(), spacing_mm=spacing_mm),
            "sensitivity": hit / num_true if num_true else float(num_predicted == 0),
            "specificity": 1 - (num_predicted - hit) / max(true.numel() - num_true, 1),
            "volume_ml": num_true * voxel_ml,
            "volume_error_ml": (num_predicted - num_true) * voxel_ml,
            **score_lesions(predicted, true, spacing_mm=spacing_mm),
        }
        if not known[index]:
            scores = {name: False if name == "has" else math.nan for name in scores}
        row |= {f"{name}_{region.name}": value for name, value in scores.items()}
    return row


def summarise_scores(rows: Sequence[Row]) -> dict[str, Summary]:
    """Summarise rows of `score_row` by region: over all cases, and over those in which the region is present.

    Returns:
        For each region `dice` over all cases (BraTS 2023), its 95% interval `low`, `high`, the number of `cases`,
        `dice_where_present` and `cases_with_region`; for the other `METRICS` the same with `<metric>_low`,
        `<metric>_high` and `<metric>_where_present`. For `mean`, the Dice of the three regions. A region present in no
        case has None there, and fewer than `MIN_INTERVAL_CASES` cases have None for `low` and `high`. Cases
        whose labels do not tell a region count neither there nor for the mean; without any other, all is None.
    """
    summary: dict[str, Summary] = {}
    for region in REGIONS:
        scored = [row for row in rows if not math.isnan(float(row[f"dice_{region.name}"]))]
        has = [bool(row[f"has_{region.name}"]) for row in scored]
        entry: Summary = {"cases": len(scored), "cases_with_region": sum(has)}
        for metric in METRICS:
            scores = [float(row[f"{metric}_{region.name}"]) for row in scored]
            present = [score for score, is_present in zip(scores, has, strict=True) if is_present]
            prefix = "" if metric == "dice" else f"{metric}_"
            low, high = bootstrap_interval(scores)
            entry |= {metric: _mean(scores), f"{prefix}low": low, f"{prefix}high": high}
            entry[f"{metric}_where_present"] = _mean(present)
        summary[region.name] = entry
    means = []
    for row in rows:
        mean = float(np.mean([float(row[f"dice_{region.name}"]) for region in REGIONS]))
        if not math.isnan(mean):
            means.append(mean)
    low, high = bootstrap_interval(means)
    return summary | {"mean": {"dice": _mean(means), "low": low, "high": high, "cases": len(means)}}


def _mean(scores: Sequence[float]) -> float | None:
    return float(np.mean(scores)) if scores else None


def _dilate(mask: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Dilate (X, Y, Z) three times, by `reach` voxels along each axis in all; (3, 3, 3) is the 18 neighbours each time."""
    for steps in np.diff(np.round(np.outer(np.arange(4) / 3, reach)).astype(int), axis=0):
        offsets = np.meshgrid(*(np.linspace(-1, 1, 2 * step + 1) for step in steps), indexing="ij")
        mask = ndimage.binary_dilation(mask, np.abs(offsets).sum(axis=0) < 2.01)
    return mask


def format_interval(scores: Summary, *, metric: str = "dice") -> str:
    """Write the 95% interval of a metric in `summarise_scores`, or why there is none."""
    prefix = "" if metric == "dice" else f"{metric}_"
    low, high = scores[f"{prefix}low"], scores[f"{prefix}high"]
    return "too few cases" if low is None or high is None else f"{low:.3f} to {high:.3f}"
