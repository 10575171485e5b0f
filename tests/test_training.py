import os
import signal

import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandFlipd

from brats_utils.loading import CaseDataset, build_eval_loader, build_train_loader
from brats_utils.model import RegionLoss, build_model, build_optimizer, build_schedule
from brats_utils.saving import resume
from brats_utils.saving.checkpoints import CheckpointError, load_checkpoint
from brats_utils.saving.resume import TrainingError, TrainingState, load_progress, save_on_interrupt, save_progress
from brats_utils.training import train_epochs, train_step

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
    train = CaseDataset(Dataset(cases), random_part, seed=0)
    val = CaseDataset(Dataset(cases[:2]), Compose([]), seed=0)
    return build_train_loader(train, batch_size=2, num_workers=0, seed=0), build_eval_loader(val, num_workers=0)


def make_state(num_steps=8, learning_rate=5e-3, precision=torch.float32, layout=torch.contiguous_format):
    torch.manual_seed(0)
    model = build_model(init_filters=8, dropout_prob=0.2).to(memory_format=layout)
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
            spacing_mm=4.0,
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


def give_scaler(state, scale=1024.0):
    """As float16 has it on a GPU."""
    state.precision, state.accelerator.scaler = torch.float16, torch.amp.GradScaler("cpu", init_scale=scale)
    return state


def test_a_checkpoint_of_a_gpu_without_a_scaler_goes_on_on_one_that_has_it(tmp_path, capsys):
    path = save_progress(make_state(), tmp_path, config={}, run_id="", is_best=False)
    state = give_scaler(make_state())
    state.restore(load_checkpoint(path))
    assert state.accelerator.scaler.get_scale() == 1024.0
    assert "Going on in torch.float16; the checkpoint was trained in another precision" in capsys.readouterr().out


def test_a_checkpoint_of_a_gpu_with_a_scaler_goes_on_on_one_without(tmp_path, capsys):
    path = save_progress(give_scaler(make_state()), tmp_path, config={}, run_id="", is_best=False)
    make_state().restore(load_checkpoint(path))
    assert "Going on in torch.float32; the checkpoint was trained in another precision" in capsys.readouterr().out


def test_the_scale_of_the_checkpoint_is_kept_where_both_have_a_scaler(tmp_path, capsys):
    path = save_progress(give_scaler(make_state(), 64.0), tmp_path, config={}, run_id="", is_best=False)
    state = give_scaler(make_state())
    state.restore(load_checkpoint(path))
    assert state.accelerator.scaler.get_scale() == 64.0
    assert not capsys.readouterr().out


def test_a_checkpoint_goes_on_in_another_memory_layout_with_the_same_numbers(tmp_path):
    saved = make_state(layout=torch.channels_last_3d)
    run(saved, make_cases(), max_epochs=2)
    path = save_progress(saved, tmp_path, config={}, run_id="", is_best=False)
    weights = []
    for layout in (torch.channels_last_3d, torch.contiguous_format):  # as a CPU in float32 has it, and a GPU
        state = make_state(layout=layout)
        state.restore(load_checkpoint(path))
        run(state, make_cases())
        weights.append([weight.detach().contiguous() for weight in state.model.parameters()])
    torch.testing.assert_close(*weights, rtol=0, atol=1e-3)


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


def test_damaged_last_falls_back_to_the_one_before_with_a_warning(tmp_path):
    state = make_state()
    for epoch in (1, 2):
        state.epoch = epoch
        last = save_progress(state, tmp_path, config={"seed": 0}, run_id="", is_best=False)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"last.pt: damaged.*Going on from .*previous.pt"):
        assert load_progress(tmp_path, config={"seed": 0}).epoch == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_going_on_from_the_one_before_keeps_it_until_a_whole_one_follows(tmp_path, monkeypatch):
    state = make_state()
    for epoch in (1, 2):
        state.epoch = epoch
        last = save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    last.write_bytes(last.read_bytes()[:-100])
    state.epoch = 3

    def fill_the_disk(content, target):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    assert load_checkpoint(tmp_path / "previous.pt").epoch == 1
    save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    assert [load_checkpoint(tmp_path / name).epoch for name in ("last.pt", "previous.pt")] == [3, 1]
    state.epoch = 4
    save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    assert [load_checkpoint(tmp_path / name).epoch for name in ("last.pt", "previous.pt")] == [4, 3]


def test_byte_that_changed_inside_a_checkpoint_is_noticed(tmp_path):
    last = save_progress(make_state(), tmp_path, config={}, run_id="", is_best=False)
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_progress(tmp_path, config={})


def test_going_on_with_other_settings_is_refused(tmp_path):
    save_progress(make_state(), tmp_path, config={"seed": 0, "cache": "ram"}, run_id="", is_best=False)
    with pytest.raises(CheckpointError, match="'seed': '0 there, 1 now'"):
        load_progress(tmp_path, config={"seed": 1, "cache": "disk"})
    assert load_progress(tmp_path, config={"seed": 0, "cache": "disk"}).epoch == 0


def interrupt_after(state, batches):
    """Send Ctrl-C while that batch is being trained on."""
    inner, count = state.loss_fn.forward, iter(range(1, 100))

    def forward(logits, regions):
        if next(count) == batches:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(logits, regions)

    state.loss_fn.forward = forward


def test_interrupted_epoch_is_finished_as_if_nothing_had_happened(tmp_path):
    whole, broken, resumed = make_state(), make_state(), make_state()
    uninterrupted = run(whole, make_cases())
    interrupt_after(broken, batches=3)  # the first of the second epoch
    with pytest.raises(KeyboardInterrupt):
        run(broken, make_cases())
    assert (broken.epoch, len(broken.batch_losses)) == (1, 1)
    save_progress(broken, tmp_path, config={}, run_id="", is_best=False)
    resumed.restore(load_progress(tmp_path, config={}))
    for state in (resumed, broken):  # from the file, and in the same notebook
        results = run(state, make_cases())
        assert [result.batch_losses for result in results] == [r.batch_losses for r in uninterrupted[1:]]
        assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), state.model.parameters(), strict=True))


def test_interrupted_training_is_saved_before_another_may_write_there(tmp_path, monkeypatch):
    def save(state, folder, **_):
        with pytest.raises(TrainingError, match="another training"), save_on_interrupt(state, folder, **run):
            raise AssertionError("two at once")
        return folder / "last.pt"

    run = {"config": {}, "run_id": ""}
    monkeypatch.setattr(resume, "save_progress", save)
    with pytest.raises(KeyboardInterrupt), save_on_interrupt(make_state(), tmp_path, **run):
        raise KeyboardInterrupt


def test_unfinished_epoch_with_a_loss_that_is_not_finite_is_not_saved(tmp_path):
    state = make_state()
    state.batch_losses = [torch.tensor(float("inf"))]
    with pytest.raises(TrainingError, match="the loss is inf"):
        save_progress(state, tmp_path, config={}, run_id="", is_best=False)
    assert not list(tmp_path.iterdir())


def test_metrics_carry_the_names_that_wandb_users_know():
    (result,) = run(make_state(num_steps=2), make_cases(), max_epochs=1)
    names = {name for row in result.metric_rows() for name in row}
    assert names >= {
        "batch/train_loss", "batch/batch_step", "epoch/mean_train_loss", "epoch/learning_rate", "epoch/epoch_step",
        "validation/mean_dice", "validation/mean_dice_tumor_core", "validation/mean_dice_whole_tumor",
        "validation/mean_dice_enhanced_tumor", "validation/validation_step",
    }  # fmt: skip
    assert result.mean_train_loss == pytest.approx(sum(result.batch_losses) / 2)
