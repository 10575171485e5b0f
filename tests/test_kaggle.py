"""The tutorial opened in Kaggle, rehearsed with stubs: packages, secrets, and GPUs that differ. Its image is Colab's with more in it."""

import subprocess
import sys
import types

import pytest
import torch

from brats_utils import colab
from brats_utils.model import choose_device

KEY = "0123456789abcdef" * 2 + "deadbeef"
ARCHITECTURES = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
"""Of torch for CUDA 12.8 in Kaggle. Source: Kaggle/docker-python issue 1546."""


@pytest.fixture
def kaggle(monkeypatch):
    monkeypatch.setattr(colab, "IN_KAGGLE", True)
    monkeypatch.setattr(colab, "IN_COLAB", False)
    colab._say_once.cache_clear()


@pytest.fixture
def plug_in(monkeypatch, kaggle):
    """Put GPUs of a name and a compute capability into the machine."""

    def plug_in(name, capability, *, count=1):
        properties = types.SimpleNamespace(total_memory=16 * 2**30)
        answers = {"is_available": True, "get_device_name": name, "get_device_capability": capability}
        answers |= {"get_arch_list": ARCHITECTURES, "device_count": count, "get_device_properties": properties}
        for function, answer in answers.items():
            monkeypatch.setattr(torch.cuda, function, lambda *args, answer=answer: answer)

    return plug_in


def test_only_what_kaggle_lacks_is_installed(kaggle, monkeypatch):
    shipped, asked = {"nilearn", "papermill"}, []
    monkeypatch.setattr(colab, "read_secret", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append([str(part) for part in command[6:]]))
    monkeypatch.setattr(colab.metadata, "distributions", lambda name: iter([name] if name in shipped else []))
    colab.set_up()
    (first, second) = asked
    assert first
    assert not [line for line in first if line.partition("==")[0] in shipped]
    assert [line for line in first if line.startswith("monai==")]
    assert second[:2] == ["--no-deps", "--editable"]


def test_a_secret_of_kaggle_reaches_wandb_and_no_output(kaggle, monkeypatch, capsys):
    secrets = types.SimpleNamespace(get_secret={"WANDB_API_KEY": KEY}.__getitem__)
    stub = types.ModuleType("kaggle_secrets")
    stub.UserSecretsClient = lambda: secrets
    monkeypatch.setitem(sys.modules, "kaggle_secrets", stub)
    colab.read_secret("WANDB_API_KEY")
    assert colab.os.environ["WANDB_API_KEY"] == KEY
    monkeypatch.delenv("WANDB_API_KEY")
    colab.read_secret("OTHER")
    printed = capsys.readouterr().out
    assert "Kaggle secrets: no OTHER (KeyError). Add one under Add-ons, Secrets," in printed
    assert KEY not in printed


def test_a_p100_that_torch_has_no_programs_for_gives_way_to_the_cpu(plug_in, capsys):
    plug_in("Tesla P100-PCIE-16GB", (6, 0))
    assert [choose_device().type for _ in range(2)] == ["cpu", "cpu"]
    assert colab.choose_preset("auto") == "laptop"
    printed = capsys.readouterr().out
    assert (
        printed.count("no programs for Tesla P100-PCIE-16GB: found compute capability 6.0, expected 7.0 or more") == 1
    )
    assert "choose T4 x2 under Settings, Accelerator" in printed


def test_one_of_two_t4s_is_used_and_a_line_starts_both(plug_in, capsys):
    plug_in("Tesla T4", (7, 5), count=2)
    assert choose_device() == torch.device("cuda", 0)
    assert colab.choose_preset("auto") == "colab"
    assert (
        "one of 2 is used. All of them train with `torchrun --standalone --nproc_per_node 2" in capsys.readouterr().out
    )
