import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandFlipd

from brats_utils.model import RegionLoss, build_model, build_optimizer, build_schedule, load_checkpoint
from brats_utils.training import TrainingError, TrainingState, save_progress, train_epochs, train_step

ROI = (16, 16, 16)


def make_cases(count=4):
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index in range(count):
        core = torch.zeros(ROI, dtype=torch.bool)
        core[4:10, 4:10, 4 : 8 + index] = True
        image = torch.randn(4, *ROI, generator=generator) + 3 * core
        cases.append({"case_id": f"case{index}", "image": image, "label": torch.stack([core] * 3)})
    return cases


def make_loaders(cases):
    random_part = Compose([RandFlipd(("image", "label"), prob=0.5, spatial_axis=0)])
    train = DataLoader(Dataset(cases, random_part), batch_size=2, shuffle=True, generator=torch.Generator())
    return train, DataLoader(Dataset(cases[:2]), batch_size=1, generator=torch.Generator())


def make_state(num_steps=8, learning_rate=5e-3, precision=torch.float32):
    torch.manual_seed(0)
    model = build_model(init_filters=8, dropout_prob=0.2)
    optimizer = build_optimizer(model, name="adamw", learning_rate=learning_rate, weight_decay=0.0)
    loss = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, "squared_pred": True, "to_onehot_y": False, "sigmoid": True}
    return TrainingState(
        model=model,
        loss_fn=RegionLoss(**loss, batch=True, bce_weight=1.0),
        optimizer=optimizer,
        schedule=build_schedule(optimizer, name="one_cycle", num_steps=num_steps),
        precision=precision,
    )


def run(state, cases, *, max_epochs=4, validation_intervals=2):
    return list(
        train_epochs(
            state,
            *make_loaders(cases),
            max_epochs=max_epochs,
            validation_intervals=validation_intervals,
            roi_size=ROI,
            seed=0,
        )
    )


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


def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    whole, broken, resumed = make_state(), make_state(), make_state()
    run(whole, make_cases())
    run(broken, make_cases(), max_epochs=2)
    path = save_progress(broken, tmp_path, config={}, run_id="abc", is_best=True)
    resumed.restore(load_checkpoint(path))
    assert [result.epoch for result in run(resumed, make_cases())] == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
    assert resumed.best_dice == whole.best_dice


def test_loss_that_is_not_finite_stops_and_names_the_cases():
    cases = make_cases(2)
    cases[1]["image"][:] = float("nan")
    with pytest.raises(TrainingError, match=r"Epoch 1, batch 1: the loss is nan on cases \[.*case1"):
        run(make_state(), cases)


def test_best_checkpoint_is_kept_when_a_later_one_is_worse(tmp_path):
    state = make_state()
    state.epoch, state.mean_dice = 1, 0.5
    save_progress(state, tmp_path, config={}, run_id="", is_best=True)
    state.epoch, state.mean_dice = 2, 0.4
    save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    assert load_checkpoint(tmp_path / "best.pt").epoch == 1
    assert load_checkpoint(tmp_path / "last.pt").epoch == 2


def test_metrics_carry_the_names_that_wandb_users_know():
    (result,) = run(make_state(num_steps=2), make_cases(), max_epochs=1)
    names = {name for row in result.metric_rows() for name in row}
    assert names >= {
        "batch/train_loss", "batch/batch_step", "epoch/mean_train_loss", "epoch/learning_rate", "epoch/epoch_step",
        "validation/mean_dice", "validation/mean_dice_tumor_core", "validation/mean_dice_whole_tumor",
        "validation/mean_dice_enhanced_tumor", "validation/validation_step",
    }  # fmt: skip
    assert result.mean_train_loss == pytest.approx(sum(result.batch_losses) / 2)
