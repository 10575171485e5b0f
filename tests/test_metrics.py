import json

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist, dice

from brats_utils.metrics import (
    METRICS,
    NSD_TOLERANCE_MM,
    WORST_DISTANCE_MM,
    _dilate,
    bootstrap_interval,
    dice_per_region,
    find_box,
    format_interval,
    score_lesions,
    score_row,
    score_surfaces,
    summarise_scores,
)

MM = (1.0, 1.0, 1.0)


def masks(*rows):
    return torch.tensor(rows, dtype=torch.bool).reshape(len(rows), -1, 1, 1)


def test_dice_is_twice_the_overlap_over_the_sum_of_sizes():
    prediction, truth = masks([1, 1, 0, 0]), masks([0, 1, 1, 1])
    assert dice_per_region(prediction, truth).tolist() == pytest.approx([2 * 1 / (2 + 3)])


def test_perfect_overlap_scores_one_and_none_scores_zero():
    truth = masks([1, 1, 0], [1, 0, 0])
    assert dice_per_region(masks([1, 1, 0], [0, 1, 1]), truth).tolist() == [1, 0]


def test_box_holds_the_mask_and_no_more():
    mask = torch.zeros(5, 6, 7, dtype=torch.bool)
    assert mask[find_box(mask)].shape == (1, 1, 1)
    mask[1, 2, 3] = mask[3, 2, 5] = True
    assert find_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 6))


def test_empty_region_scores_one_if_left_empty_and_zero_with_a_false_positive():
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
    with_et = score_row("a", masks([1, 0], [1, 1], [0, 1]), masks([1, 0], [1, 1], [1, 1]), spacing_mm=MM)
    without_et = score_row("b", masks([1, 0], [1, 1], [0, 0]), masks([1, 0], [1, 1], [0, 0]), spacing_mm=MM)
    summary = summarise_scores([with_et, without_et])["ET"]
    assert summary["dice"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    assert summary["dice_where_present"] == pytest.approx(2 / 3, abs=1e-4)
    assert (summary["cases"], summary["cases_with_region"]) == (2, 1)


def test_a_row_has_each_metric_of_each_region():
    row = score_row("a", masks([1], [1], [0]), masks([1], [1], [1]), spacing_mm=MM)
    assert {f"{metric}_{region}" for metric in METRICS for region in ("TC", "WT", "ET")} < set(row)


def test_fewer_than_three_cases_have_a_mean_and_no_interval():
    row = score_row("a", masks([1], [1], [0]), masks([1], [1], [1]), spacing_mm=MM)
    few, enough = (json.loads(json.dumps(summarise_scores([row] * count), allow_nan=False)) for count in (2, 3))
    for scores in few.values():
        assert (scores["low"], scores["high"], format_interval(scores)) == (None, None, "too few cases")
    assert few["ET"]["lesion_f1_low"] is None
    assert [format_interval(enough[name]) for name in ("WT", "ET")] == ["1.000 to 1.000", "0.000 to 0.000"]


def test_region_found_in_no_case_has_no_mean_where_present():
    row = score_row("a", masks([1], [1], [0]), masks([1], [1], [0]), spacing_mm=MM)
    assert summarise_scores([row])["ET"]["dice_where_present"] is None


def boxes(shape, *corners):
    """A mask with boxes, each given by its first and last voxel on the diagonal."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for first, last in corners:
        mask[tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))] = True
    return mask


def measure_surfaces(prediction, truth, spacing_mm):
    """From each surface voxel to the other surface, point by point: those voxels touch the outside through a face."""
    surfaces = []
    for mask in (prediction, truth):
        padded = np.pad(mask.numpy(), 1)
        inner = np.ones_like(padded)
        for axis in range(3):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        surfaces.append(np.argwhere(padded & ~inner) * np.array(spacing_mm))
    distances = cdist(*surfaces)
    return distances.min(axis=1), distances.min(axis=0)


def test_dice_agrees_with_scipy_and_sensitivity_with_counting():
    generator = torch.Generator().manual_seed(1)
    prediction, truth = (torch.rand(3, 8, 8, 8, generator=generator) > 0.6 for _ in range(2))
    row = score_row("a", prediction, truth, spacing_mm=MM)
    true, predicted = truth[1].flatten().numpy(), prediction[1].flatten().numpy()
    assert row["dice_WT"] == pytest.approx(1 - dice(true, predicted), abs=1e-4)
    assert row["sensitivity_WT"] == pytest.approx(predicted[true].mean())
    assert row["specificity_WT"] == pytest.approx(1 - predicted[~true].mean())


def test_hd95_and_nsd_agree_with_the_definition_point_by_point():
    generator = torch.Generator().manual_seed(2)
    prediction, truth = (torch.rand(9, 8, 7, generator=generator) > 0.8 for _ in range(2))
    for spacing_mm in (MM, (1.0, 1.0, 3.0)):
        found = score_surfaces(prediction.numpy(), truth.numpy(), spacing_mm=spacing_mm)
        ways = measure_surfaces(prediction, truth, spacing_mm)
        assert found["hd95_mm"] == pytest.approx(max(np.percentile(way, 95) for way in ways))
        assert found["nsd"] == pytest.approx(np.mean([(way <= NSD_TOLERANCE_MM).mean() for way in ways]))


def test_hd95_of_two_shifted_boxes_is_the_shift_in_mm():
    truth = boxes((20, 20, 20), ((5, 5, 5), (10, 10, 10)))
    found = score_surfaces(truth.roll(2, 2).numpy(), truth.numpy(), spacing_mm=(1.0, 1.0, 2.5))
    assert found["hd95_mm"] == 5.0


@pytest.mark.parametrize(
    ("predicted", "true", "distance", "nsd"), [(0, 0, 0.0, 1), (1, 0, 374.0, 0), (0, 1, 374.0, 0), (1, 1, 0.0, 1)]
)
def test_surfaces_of_empty_masks_follow_brats_2023(predicted, true, distance, nsd):
    prediction, truth = (masks([value])[0].numpy() for value in (predicted, true))
    assert score_surfaces(prediction, truth, spacing_mm=MM) == {"hd95_mm": distance, "nsd": nsd}


def test_true_and_false_positive_and_missed_lesions_are_counted():
    shape = (60, 20, 20)
    truth = boxes(shape, ((2, 5, 5), (7, 10, 10)), ((25, 5, 5), (30, 10, 10)))
    prediction = boxes(shape, ((2, 5, 5), (7, 10, 7)), ((50, 5, 5), (55, 10, 10)))
    scores = score_lesions(prediction, truth, spacing_mm=MM)
    assert [scores[f"lesions_{kind}"] for kind in ("found", "missed", "invented")] == [1, 1, 1]
    # Dice of the first: 2 * 108 / (108 + 216); nothing for the second; divided by two true and one invented
    assert scores["lesion_dice"] == pytest.approx((2 * 108 / 324 + 0) / 3)
    assert scores["lesion_f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    # the first box ends 3 mm too low, the others are 374 mm off
    assert scores["lesion_hd95_mm"] == pytest.approx((3 + WORST_DISTANCE_MM + WORST_DISTANCE_MM) / 3)


def test_specks_within_six_mm_are_one_lesion_and_farther_ones_are_two():
    near = boxes((40, 20, 20), ((5, 5, 5), (9, 9, 9)), ((14, 5, 5), (18, 9, 9)))
    far = boxes((40, 20, 20), ((5, 5, 5), (9, 9, 9)), ((24, 5, 5), (28, 9, 9)))
    nothing = torch.zeros_like(near)
    assert score_lesions(nothing, near, spacing_mm=MM)["lesions_missed"] == 1
    assert score_lesions(nothing, far, spacing_mm=MM)["lesions_missed"] == 2
    assert score_lesions(nothing, near, spacing_mm=(3.0, 3.0, 3.0))["lesions_missed"] == 2  # 12 mm apart


@pytest.mark.parametrize(
    ("spacing_mm", "axis", "gap", "lesions"),
    [
        ((1, 1, 1), 0, 6, 1), ((1, 1, 1), 0, 7, 2),
        ((1, 1, 5), 0, 3, 1), ((1, 1, 5), 0, 7, 2), ((1, 1, 5), 2, 1, 1), ((1, 1, 5), 2, 2, 2),
        ((2, 2, 2), 1, 3, 1), ((2, 2, 2), 1, 4, 2), ((0.5, 0.5, 3), 0, 12, 1), ((0.5, 0.5, 3), 0, 13, 2),
    ],
)  # fmt: skip
def test_gap_between_two_lesions_counts_in_mm_along_every_axis(spacing_mm, axis, gap, lesions):
    """One lesion where the gap is at most 6 mm: `gap` empty voxels along the axis, of the size given."""
    truth = torch.zeros(40, 40, 40, dtype=torch.bool)
    truth[5:13, 5:13, 5:13] = True
    truth = truth | truth.roll(8 + gap, axis)
    missed = score_lesions(torch.zeros_like(truth), truth, spacing_mm=spacing_mm)["lesions_missed"]
    assert missed == lesions


@pytest.mark.parametrize(("axis", "distance", "touches"), [(0, 3, True), (0, 4, False), (2, 1, True), (2, 2, False)])
def test_prediction_within_3_mm_of_a_lesion_belongs_to_it_on_thick_slices(axis, distance, touches):
    truth = boxes((20, 20, 20), ((5, 5, 5), (9, 9, 9)))
    speck = [7, 7, 7]
    speck[axis] = 9 + distance
    scores = score_lesions(boxes(truth.shape, (speck, speck)), truth, spacing_mm=(1.0, 1.0, 5.0))
    assert (scores["lesions_found"], scores["lesions_invented"]) == ((1, 0) if touches else (0, 1))


def test_lesions_at_1_mm_are_those_of_three_dilations_by_18_neighbours():
    mask = np.random.default_rng(0).random((30, 30, 30)) > 0.998
    published = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2), iterations=3)
    assert np.array_equal(_dilate(mask, np.array([3, 3, 3])), published)


def test_a_true_speck_of_50_cubic_mm_is_not_scored_and_finding_it_is_no_invention():
    truth = boxes((20, 20, 20), ((5, 5, 5), (9, 9, 6)))  # 5 x 5 x 2 = 50
    assert score_lesions(truth, truth, spacing_mm=MM)["lesion_dice"] == 1
    assert score_lesions(torch.zeros_like(truth), truth, spacing_mm=MM)["lesions_missed"] == 0
    assert score_lesions(truth, truth, spacing_mm=MM)["lesions_invented"] == 0


def test_without_any_lesion_both_lesion_scores_are_one_and_an_invention_makes_them_zero():
    nothing, speck = torch.zeros(9, 9, 9, dtype=torch.bool), boxes((9, 9, 9), ((4, 4, 4), (4, 4, 4)))
    assert score_lesions(nothing, nothing, spacing_mm=MM)["lesion_f1"] == 1
    scores = score_lesions(speck, nothing, spacing_mm=MM)
    assert (scores["lesion_dice"], scores["lesion_f1"], scores["lesions_invented"]) == (0, 0, 1)


def test_volumes_are_in_ml_and_errors_are_signed():
    truth = masks([1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0])
    row = score_row("a", masks([1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]), truth, spacing_mm=(10.0, 10.0, 10.0))
    assert [row[f"volume_ml_{name}"] for name in ("TC", "WT", "ET")] == [3, 3, 3]
    assert [row[f"volume_error_ml_{name}"] for name in ("TC", "WT", "ET")] == [-2, 1, 0]
