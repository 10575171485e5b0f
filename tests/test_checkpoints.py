import pickle

import pytest
import torch
from damage import damage

from brats_utils.commands.model_card import write_model_card
from brats_utils.inference import build_predictor
from brats_utils.model import build_model
from brats_utils.saving.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint


def make_checkpoint(**changes):
    state = {"state": {}, "param_groups": []}
    content = {
        "model": build_model(init_filters=8, dropout_prob=0.2).state_dict(),
        "config": {"init_filters": 8, "dropout_prob": 0.2},
        "epoch": 2,
        "batch_losses": [],
        "history": [],
    }
    content |= {"mean_dice": 0.5, "best_dice": 0.6, "run_id": "abc"}
    return Checkpoint(**(content | {"optimizer": state, "schedule": {}, "scaler": {}} | changes))


def test_checkpoint_comes_back_as_it_was(tmp_path):
    saved = make_checkpoint()
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a.pt", saved))
    image = torch.rand(1, 4, 16, 16, 16)
    assert torch.equal(loaded.build_model()(image), saved.build_model()(image))
    assert (loaded.epoch, loaded.best_dice, loaded.run_id) == (2, 0.6, "abc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_missing_checkpoint_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(CheckpointError, match="03_train makes it"):
        load_checkpoint(tmp_path / "a.pt")


def test_truncated_checkpoint_is_refused(tmp_path):
    path = save_checkpoint(tmp_path / "a.pt", make_checkpoint())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"damaged|refused"):
        load_checkpoint(path)


@pytest.mark.slow
def test_a_byte_that_changed_anywhere_is_noticed_or_does_no_harm(tmp_path):
    """A small file, so that many of the bytes are in the zip's list of contents."""
    weights, refused = torch.arange(8.0), 0
    whole = save_checkpoint(tmp_path / "whole.pt", make_checkpoint(model={"weights": weights})).read_bytes()
    for data in damage(whole):
        (tmp_path / "a.pt").write_bytes(data)
        try:
            loaded = load_checkpoint(tmp_path / "a.pt")
        except CheckpointError:
            refused += 1
        else:
            assert torch.equal(loaded.model["weights"], weights)
            assert vars(loaded) | {"model": {}} == vars(make_checkpoint(model={}))
    assert refused > 100


def test_a_tensor_that_the_list_of_contents_calls_a_folder_is_refused(tmp_path):
    path = save_checkpoint(tmp_path / "a.pt", make_checkpoint(model={"weights": torch.arange(8.0)}))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2", 0, data.rindex(b"/data/0"))
    data[entry + 38] |= 0x10  # external attributes
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="data/0 is not as it was written"):
        load_checkpoint(path)


def test_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this tutorial"):
        load_checkpoint(tmp_path / "a.pt")


def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    for name, save in (("torch.pt", torch.save), ("plain.pt", lambda o, p: p.write_bytes(pickle.dumps(o, protocol=2)))):
        save(Evil(), tmp_path / name)
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "was_here").exists()


def test_checkpoint_of_another_architecture_is_refused():
    with pytest.raises(CheckpointError, match="do not fit"):
        make_checkpoint(config={"init_filters": 16, "dropout_prob": 0.2}).build_model()


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a.pt", make_checkpoint(epoch=1))

    def fill_the_disk(content, target):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, make_checkpoint(epoch=2))
    assert load_checkpoint(path).epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("use", [lambda checkpoint: build_predictor([checkpoint]), write_model_card])
def test_checkpoint_without_its_settings_is_refused(use):
    with pytest.raises(CheckpointError, match=r"settings lack init_filters, dropout_prob, spacing_mm, .* train again"):
        use(make_checkpoint(config={}))
