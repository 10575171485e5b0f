"""Dice per case and region, with the BraTS rule for regions that are not there."""

from collections.abc import Sequence

import numpy as np
import torch

from brats_utils.labels import REGIONS

Summary = dict[str, float | int | None]


def dice_per_region(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Compute the Dice score of each region of one case.

    An empty region scores 1 if the prediction is empty too and 0 if it is not, so that inventing
    tumour costs something. `monai.metrics.DiceMetric(ignore_empty=True)` skips such cases and hides it.

    Args:
        prediction: (R, X, Y, Z) bool.
        truth: (R, X, Y, Z) bool.

    Returns:
        (R,) float64 in [0, 1].

    Raises:
        ValueError: if the shapes differ.

    Source:
        Empty-region rule of the BraTS challenges, e.g. Bakas 2018, arXiv 1811.02629.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"Found a prediction of shape {tuple(prediction.shape)}, expected {tuple(truth.shape)}.")
    prediction, truth = prediction.bool().flatten(1), truth.bool().flatten(1)
    overlap = (prediction & truth).sum(1).double()
    total = prediction.sum(1).double() + truth.sum(1).double()
    return torch.where(total == 0, 1.0, 2 * overlap / total.clamp(min=1))


def bootstrap_interval(values: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Estimate the 95% confidence interval of a mean by resampling cases.

    Args:
        values: one score a case.
        seed: of the resampling.
        resamples: how many times the cases are drawn again.

    Returns:
        Lower and upper bound.

    Source:
        Percentile bootstrap, Efron and Tibshirani 1993, chapter 13.
    """
    scores = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(scores), size=(resamples, len(scores)))
    low, high = np.percentile(scores[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def summarise_dice(rows: Sequence[dict[str, float | bool | str]]) -> dict[str, Summary]:
    """Summarise per-case scores by region, honestly: with and without the cases that lack the region.

    Args:
        rows: one a case, with `dice_<region>` in [0, 1] and `has_<region>` as `score_row` makes them.

    Returns:
        For each region and for `mean`: `dice` over all cases (BraTS rule), its 95% interval
        `low`, `high` and the number of `cases`; for regions also `dice_where_present` and `cases_with_region`.
        A region present in no case has a `dice_where_present` of None.
    """
    summary: dict[str, Summary] = {}
    for region in REGIONS:
        scores = [float(row[f"dice_{region.name}"]) for row in rows]
        present = [float(row[f"dice_{region.name}"]) for row in rows if row[f"has_{region.name}"]]
        summary[region.name] = _summarise(scores) | {
            "dice_where_present": float(np.mean(present)) if present else None,
            "cases_with_region": len(present),
        }
    means = [float(np.mean([float(row[f"dice_{region.name}"]) for region in REGIONS])) for row in rows]
    return summary | {"mean": _summarise(means)}


def score_row(case_id: str, prediction: torch.Tensor, truth: torch.Tensor) -> dict[str, float | bool | str]:
    """Score one case as a flat row: `case_id`, `dice_TC` … and `has_TC` … (whether the truth has the region).

    Args:
        case_id: name of the case.
        prediction: (3, X, Y, Z) bool, channels in the order of `REGIONS`.
        truth: (3, X, Y, Z) bool.
    """
    row: dict[str, float | bool | str] = {"case_id": case_id}
    for region, dice, mask in zip(REGIONS, dice_per_region(prediction, truth), truth, strict=True):
        row |= {f"dice_{region.name}": round(float(dice), 4), f"has_{region.name}": bool(mask.any())}
    return row


def _summarise(scores: Sequence[float]) -> Summary:
    low, high = bootstrap_interval(scores)
    return {"dice": float(np.mean(scores)), "low": low, "high": high, "cases": len(scores)}
