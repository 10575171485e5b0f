"""A training goes on from what it saved as if nothing had happened, or says why it cannot."""

import os
import signal

import pytest
import torch
from tiny_training import make_cases, make_state, run

from brats_utils.saving import resume
from brats_utils.saving.checkpoints import CheckpointError, load_checkpoint
from brats_utils.saving.resume import TrainingError, load_progress, save_on_interrupt, save_progress


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
