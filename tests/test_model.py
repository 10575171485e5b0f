from functools import cache

import pytest
import torch

from brats_utils import model
from brats_utils.model import (
    RegionLoss,
    build_model,
    build_optimizer,
    build_schedule,
    choose_device,
    choose_layout,
)

LOSS = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, "squared_pred": True, "to_onehot_y": False, "sigmoid": True}


def test_network_gives_one_logit_a_region_on_the_same_grid():
    assert build_model(init_filters=8, dropout_prob=0.2)(torch.zeros(1, 4, 16, 24, 16)).shape == (1, 3, 16, 24, 16)


def test_network_has_the_size_of_the_published_one():
    weights = sum(parameter.numel() for parameter in build_model(init_filters=16, dropout_prob=0.2).parameters())
    assert weights == pytest.approx(4.7e6, rel=0.01)


def test_smoothing_gives_a_correct_empty_prediction_no_loss():
    quiet, empty = torch.full((1, 3, 8, 8, 8), -20.0), torch.zeros(1, 3, 8, 8, 8)
    smooth = RegionLoss(**LOSS, batch=False, bce_weight=0.0)
    classic = RegionLoss(**LOSS | {"smooth_nr": 0.0}, batch=False, bce_weight=0.0)
    assert smooth(quiet, empty).item() == pytest.approx(0, abs=1e-4)
    assert classic(quiet, empty).item() == pytest.approx(1)


def test_cross_entropy_adds_to_the_loss_by_its_weight():
    logits, target = torch.zeros(1, 3, 4, 4, 4), torch.ones(1, 3, 4, 4, 4)
    without, with_bce = (RegionLoss(**LOSS, batch=True, bce_weight=w)(logits, target) for w in (0.0, 2.0))
    assert (with_bce - without).item() == pytest.approx(2 * 0.6931, abs=1e-3)


@pytest.mark.parametrize(("name", "first_is_highest"), [("cosine", True), ("one_cycle", False)])
def test_schedule_ends_near_zero(name, first_is_highest):
    optimizer = build_optimizer(torch.nn.Linear(1, 1), name="adamw", learning_rate=0.1, weight_decay=0.0)
    schedule = build_schedule(optimizer, name=name, num_steps=20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.1)
    assert (rates[0] == max(rates)) == first_is_highest
    assert rates[-1] < 0.01


@pytest.mark.parametrize(
    ("device", "precision", "layout"),
    [
        ("cpu", torch.float32, torch.channels_last_3d),
        ("cpu", torch.bfloat16, torch.contiguous_format),
        ("cuda", torch.float16, torch.contiguous_format),
    ],
)
def test_weights_lie_channels_last_where_a_cpu_computes_in_float32(device, precision, layout):
    assert choose_layout(torch.device(device), precision) is layout


@pytest.mark.slow
def test_apples_gpu_is_taken_where_it_can_do_a_training_step(monkeypatch):
    assert model.can_train("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(model, "can_train", lambda device: device == "mps")
    assert choose_device() == torch.device("mps")


def test_the_cpu_is_taken_and_the_reason_said_where_apples_gpu_lacks_an_operation(monkeypatch, capsys):
    class LackingModel(torch.nn.Module):
        def to(self, device):
            raise NotImplementedError(f"The operator 'aten::x' is not implemented for {device}.\nTry another.")

    monkeypatch.setattr(model, "build_model", lambda **_: LackingModel())
    monkeypatch.setattr(model, "can_train", cache(model.can_train.__wrapped__))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == choose_device() == torch.device("cpu")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("cannot train on mps: The operator 'aten::x' is not implemented for mps.")


@pytest.mark.slow
def test_trying_a_device_draws_no_random_number_of_the_training():
    before = torch.get_rng_state()
    assert model.can_train.__wrapped__("cpu")
    assert torch.equal(torch.get_rng_state(), before)
