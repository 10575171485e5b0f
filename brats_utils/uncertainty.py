"""How far a prediction can be trusted: one number per case, and how honest its probabilities are."""

import math

import numpy as np
import torch

from brats_utils.labels import REGIONS

NUM_BINS = 10

MIN_PROBABILITY = 0.05
"""Less than this is left out of `expected_dice`: the many healthy voxels together would outweigh a tumour."""

LOW_EXPECTED_DICE = 0.65
"""A prediction that expects less of itself, on average over the regions that it found, is called doubtful.

Chosen on the 26 development cases, see docs/phantom.md#does-it-know.
"""


def is_doubtful(expected: float | None) -> bool:
    """Tell whether the mean of `expected_dice` is low; where nothing was found (NaN or None) it says nothing."""
    return expected is not None and expected < LOW_EXPECTED_DICE


def expected_dice(probabilities: torch.Tensor, regions: torch.Tensor) -> dict[str, float]:
    """Estimate the Dice score of a prediction without knowing the truth, from its own probabilities.

    If each voxel is tumour with its probability p, then the mask m may expect a Dice of about 2 Σ pm / (Σ p + Σ m).

    Both are (3, X, Y, Z), channels in the order of `REGIONS`: float in [0, 1] and bool, the final masks. Gives a number
    in [0, 1] by region, and `mean` over the regions that were found. NaN for a region that was not found: its Dice is
    1 or 0, and the probabilities of a network do not tell which.
    """
    scores = {}
    for region, probability, mask in zip(REGIONS, probabilities, regions, strict=True):
        total = float(probability[probability > MIN_PROBABILITY].sum()) + float(mask.sum())
        scores[region.name] = 2 * float(probability[mask].sum()) / total if mask.any() else math.nan
    found = [score for score in scores.values() if not math.isnan(score)]
    return scores | {"mean": sum(found) / len(found) if found else math.nan}


def count_calibration(probabilities: torch.Tensor, truth: torch.Tensor, brain: torch.Tensor) -> np.ndarray:
    """Sort the voxels of a brain by predicted probability and count how many are tumour; counts of cases add up.

    `probabilities` is (3, X, Y, Z) float in [0, 1], `truth` the same of bool, `brain` (X, Y, Z) bool: the voxels to
    count. Background would make any network look well calibrated. Gives (3, NUM_BINS, 3) float64: for each region and bin the
    number of voxels, the sum of their probabilities, and how many of them are tumour. MONAI's `calibration_binning`
    adds up in float32, gives means, and puts .1 into the bin below it; `numpy.histogram` takes twice the time.
    """
    counts = np.zeros((len(REGIONS), NUM_BINS, 3))
    for index in range(len(REGIONS)):
        probability = probabilities[index][brain].double()
        place = (probability * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        for column, weights in enumerate((torch.ones_like(probability), probability, truth[index][brain].double())):
            counts[index, :, column] = torch.bincount(place, weights=weights, minlength=NUM_BINS).numpy()
    return counts


def calibration_error(counts: np.ndarray) -> dict[str, float]:
    """Compute the expected calibration error (ECE) of each region: the mean gap between confidence and truth.

    `counts` are those of `count_calibration`, summed over cases. Source: Guo 2017, arXiv 1706.04599, with the
    probability of the region in place of the winning class's. NaN for a region of which no voxel was counted.
    """
    voxels = counts[..., 0].sum(axis=1)
    gaps = np.abs(counts[..., 1] - counts[..., 2]).sum(axis=1) / np.where(voxels, voxels, np.nan)
    return dict(zip((region.name for region in REGIONS), gaps.tolist(), strict=True))
