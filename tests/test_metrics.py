import pytest
import torch

from brats_utils.metrics import bootstrap_interval, dice_per_region, score_row, summarise_dice


def masks(*rows):
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), -1, 1, 1)


def test_dice_is_twice_the_overlap_over_the_sum_of_sizes():
    prediction, truth = masks([1, 1, 0, 0]), masks([0, 1, 1, 1])
    assert dice_per_region(prediction, truth).tolist() == pytest.approx([2 * 1 / (2 + 3)])


def test_perfect_overlap_scores_one_and_none_scores_zero():
    truth = masks([1, 1, 0], [1, 0, 0])
    assert dice_per_region(masks([1, 1, 0], [0, 1, 1]), truth).tolist() == [1, 0]


def test_empty_region_scores_one_if_left_empty_and_zero_if_invented():
    truth = masks([0, 0, 0], [0, 0, 0])
    assert dice_per_region(masks([0, 0, 0], [0, 1, 0]), truth).tolist() == [1, 0]


def test_monai_agrees_where_the_region_exists():
    monai_metrics = pytest.importorskip("monai.metrics")
    generator = torch.Generator().manual_seed(0)
    prediction, truth = (torch.rand(3, 8, 8, 8, generator=generator) > 0.6 for _ in range(2))
    theirs = monai_metrics.DiceMetric(reduction="none")(prediction[None].float(), truth[None].float())[0]
    torch.testing.assert_close(dice_per_region(prediction, truth).float(), theirs)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Found a prediction of shape \(1, 2, 1, 1\), expected \(1, 3, 1, 1\)"):
        dice_per_region(masks([1, 0]), masks([1, 0, 0]))


def test_bootstrap_interval_holds_the_mean_and_shrinks_with_more_cases():
    low, high = bootstrap_interval([0.2, 0.8] * 5)
    assert low < 0.5 < high
    narrow = bootstrap_interval([0.2, 0.8] * 50)
    assert narrow[1] - narrow[0] < high - low


def test_summary_tells_apart_all_cases_and_those_with_the_region():
    with_et = score_row("a", masks([1, 0], [1, 1], [0, 1]), masks([1, 0], [1, 1], [1, 1]))
    without_et = score_row("b", masks([1, 0], [1, 1], [0, 0]), masks([1, 0], [1, 1], [0, 0]))
    summary = summarise_dice([with_et, without_et])["ET"]
    assert summary["dice"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    assert summary["dice_where_present"] == pytest.approx(2 / 3, abs=1e-4)
    assert (summary["cases"], summary["cases_with_region"]) == (2, 1)


def test_region_found_in_no_case_has_no_mean_where_present():
    row = score_row("a", masks([1], [1], [0]), masks([1], [1], [0]))
    assert summarise_dice([row])["ET"]["dice_where_present"] is None
