import math

import numpy as np
import pytest
import torch

from brats_utils.uncertainty import calibration_error, count_calibration, expected_dice


def test_a_sure_prediction_expects_a_dice_of_one():
    mask = torch.zeros(3, 4, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    assert expected_dice(mask.float(), mask) == {"TC": 1, "WT": 1, "ET": 1, "mean": 1}


def test_expected_dice_by_hand():
    probabilities = torch.tensor([0.8, 0.6, 0.4, 0.01]).reshape(1, 4, 1, 1).expand(3, 4, 1, 1)
    found = expected_dice(probabilities, probabilities > 0.5)
    # overlap .8 + .6; sum of probabilities from .05 on 1.8; mask of 2 voxels
    assert found["WT"] == pytest.approx(2 * 1.4 / (1.8 + 2))


def test_a_region_that_was_not_found_has_no_expectation():
    probabilities = torch.zeros(3, 2, 1, 1)
    probabilities[1] = 0.9
    found = expected_dice(probabilities, probabilities > 0.5)
    assert math.isnan(found["ET"])
    assert found["mean"] == found["WT"]
    assert math.isnan(expected_dice(torch.zeros(3, 2, 1, 1), torch.zeros(3, 2, 1, 1, dtype=torch.bool))["mean"])


def test_honest_probabilities_have_no_calibration_error_and_boasting_ones_do():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 60, 60, 60, generator=generator)
    truth = torch.rand(3, 60, 60, 60, generator=generator) < probabilities
    brain = torch.ones(60, 60, 60, dtype=torch.bool)
    assert calibration_error(count_calibration(probabilities, truth, brain))["WT"] < 0.005
    never = torch.zeros_like(truth)
    assert calibration_error(count_calibration(probabilities, never, brain))["WT"] == pytest.approx(0.5, abs=0.01)


def test_counts_of_cases_add_up_and_background_does_not_count():
    probabilities, truth = torch.full((3, 2, 1, 1), 0.95), torch.ones(3, 2, 1, 1, dtype=torch.bool)
    brain = torch.tensor([True, False]).reshape(2, 1, 1)
    counts = count_calibration(probabilities, truth, brain)
    assert counts[0, 9].tolist() == pytest.approx([1, 0.95, 1])
    assert np.array_equal((counts + counts)[..., 0].sum(axis=1), [2, 2, 2])
