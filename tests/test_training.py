"""The training loop learns, validates when it should, and ends the same each time."""

import pytest
import torch
from tiny_training import make_cases, make_loaders, make_state, run

from brats_utils.saving.resume import TrainingError
from brats_utils.training import train_step

pytestmark = pytest.mark.slow


def test_loss_falls_when_one_batch_is_seen_again_and_again():
    state, (loader, _) = make_state(num_steps=30, learning_rate=1e-2), make_loaders(make_cases(2))
    batch = next(iter(loader))
    losses = [train_step(state, batch).item() for _ in range(30)]
    assert losses[-1] < 0.75 * losses[0]


def test_validation_comes_at_its_interval_and_at_the_end():
    results = run(make_state(num_steps=6), make_cases(), max_epochs=3)
    assert [result.dice is not None for result in results] == [False, True, True]
    assert results[-1].dice.shape == (2, 3)


def test_best_is_the_highest_validation_so_far():
    results = run(make_state(), make_cases(), validation_intervals=1)
    best = -1.0
    for result in results:
        assert result.is_best == (result.mean_dice > best)
        best = max(best, result.mean_dice)


def test_learning_rate_is_that_of_the_epoch_just_trained():
    state, reference = make_state(num_steps=8), make_state(num_steps=8)
    used = []
    for _ in range(8):
        used.append(reference.optimizer.param_groups[0]["lr"])
        reference.optimizer.step()
        reference.schedule.step()
    assert [result.learning_rate for result in run(state, make_cases())] == pytest.approx(used[1::2])


def test_same_seed_gives_the_same_weights_to_the_last_bit():
    first, second = make_state(), make_state()
    run(first, make_cases())
    run(second, make_cases())
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_loss_that_is_not_finite_stops_and_names_the_cases():
    cases = make_cases(2)
    cases[1]["image"][:] = float("nan")
    with pytest.raises(TrainingError, match=r"Epoch 1, batch 1: the loss is nan on cases \[.*case1"):
        run(make_state(), cases)


def test_metrics_carry_the_names_that_wandb_users_know():
    (result,) = run(make_state(num_steps=2), make_cases(), max_epochs=1)
    names = {name for row in result.metric_rows() for name in row}
    assert names >= {
        "batch/train_loss", "batch/batch_step", "epoch/mean_train_loss", "epoch/learning_rate", "epoch/epoch_step",
        "validation/mean_dice", "validation/mean_dice_tumor_core", "validation/mean_dice_whole_tumor",
        "validation/mean_dice_enhanced_tumor", "validation/validation_step",
    }  # fmt: skip
    assert result.mean_train_loss == pytest.approx(sum(result.batch_losses) / 2)
