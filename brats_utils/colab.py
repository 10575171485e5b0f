"""How a notebook begins, and what is special in Google Colab and Kaggle: packages, secrets, and a GPU that differs from visit to visit.

Imports nothing that either lacks: the bootstrap cell calls `set_up` before anything is installed.
"""

import os
import re
import subprocess
import sys
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from brats_utils.drive import IN_COLAB
from brats_utils.memory import keep_freed_memory
from brats_utils.paths import REPOSITORY, say

IN_KAGGLE = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
"""A Kaggle notebook; its image is made from Colab's, but does not load `google.colab`. Source: Kaggle/docker-python."""

SMALL_GPU_GB = 24
GPU_PRESETS = ("colab", "full", "classic")


def set_up() -> None:
    """Begin a notebook: install what Colab or Kaggle lacks; elsewhere, go from the notebooks' folder up to the repository's.

    There relative paths start; in Colab and Kaggle in their first folder (`/kaggle/working`, which is kept), and under
    papermill in the folder that it was called from.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")  # we show no widgets
    keep_freed_memory()
    if not (IN_COLAB or IN_KAGGLE):
        if Path("01_setup.ipynb").is_file() and Path.cwd().is_relative_to(REPOSITORY):
            os.chdir(REPOSITORY)
        return
    if not list(metadata.distributions(name="brats-utils")):  # it is installed last
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        lacking = _list_lacking(REPOSITORY / "colab_requirements.txt")
        if lacking:
            subprocess.run([*pip, *lacking], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", REPOSITORY], check=True)  # they have the rest
    read_secret()


def _list_lacking(requirements: Path) -> list[str]:
    """Of a file of requirements, those that are not installed in any version: what a host ships stays as it is."""
    lines = [line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not list(metadata.distributions(name=line.partition("==")[0]))]


def read_secret(name: str = "WANDB_API_KEY") -> None:
    """Put a secret of Colab or Kaggle into the environment; without one, or without access, nothing changes.

    The value is never printed. `tracking.resolve_mode` then says whether the run is online or offline.
    """
    host = "Kaggle" if IN_KAGGLE else "Colab"
    place = "under Add-ons, Secrets," if IN_KAGGLE else "in the sidebar, under the key,"
    try:
        os.environ.setdefault(name, _ask_host(name))
    except Exception as error:  # not there, or access was denied; both raise errors of their own
        print(f"{host} secrets: no {name} ({type(error).__name__}). Add one {place} to use it.")


def _ask_host(name: str) -> str:
    if IN_KAGGLE:
        from kaggle_secrets import UserSecretsClient

        return UserSecretsClient().get_secret(name)
    from google.colab import userdata

    return userdata.get(name)


@cache
def _say_once(text: str) -> None:
    say(text)


def has_usable_gpu() -> bool:
    """Whether there is an NVIDIA or AMD GPU that this torch has programs for; a sentence says so once if it has none.

    Kaggle's P100 has compute capability 6.0, and wheels of torch for CUDA 12.8 begin at 7.0. It is found, and the first
    operation fails. Source: Kaggle/kaggle-cli issue 1151, Kaggle/docker-python issue 1546.
    """
    if not torch.cuda.is_available():
        return False
    architectures = " ".join(torch.cuda.get_arch_list())
    built = [int(digits) for digits in re.findall(r"sm_(\d+)", architectures)]
    major, minor = torch.cuda.get_device_capability(0)
    if not built or 10 * major + minor >= min(built):
        return True
    hint = "In Kaggle choose T4 x2 under Settings, Accelerator" if IN_KAGGLE else "Use a newer GPU, or an older torch"
    _say_once(
        f"Device: the CPU, because torch {torch.__version__} has no programs for {torch.cuda.get_device_name(0)}: found "
        f"compute capability {major}.{minor}, expected {min(built) / 10:.1f} or more. {hint}."
    )
    return False


def choose_preset(preset: str) -> str:
    """Turn the preset `auto` into one that suits the machine, and say so; leave any other as it is.

    In Colab and Kaggle the GPU decides, and with one the data is MSD (7 GB). Elsewhere `auto` is `laptop`, GPU or not: nothing
    large is downloaded and nothing long is started unasked.
    """
    if preset != "auto":
        if preset in GPU_PRESETS and not (has_usable_gpu() or torch.backends.mps.is_available()):
            print(
                f"preset: {preset} is made for a GPU, found none. A step will take a minute or more; `laptop` suits a CPU."
            )
        return preset
    if not (IN_COLAB or IN_KAGGLE) or not has_usable_gpu():
        menu = "Settings, Accelerator" if IN_KAGGLE else "Runtime, Change runtime type"
        print("preset: laptop, on the phantom" + (f". For a GPU: {menu}." if IN_COLAB or IN_KAGGLE else ""))
        return "laptop"
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 2**30
    chosen = "colab" if memory_gb <= SMALL_GPU_GB else "full"
    print(f"preset: {chosen}, for {torch.cuda.get_device_name(0)} with {memory_gb:.0f} GB, on MSD (7 GB to download).")
    if torch.cuda.device_count() > 1:
        print(
            f"GPUs: one of {torch.cuda.device_count()} is used. All of them train with `torchrun --standalone "
            f"--nproc_per_node {torch.cuda.device_count()} -m brats_utils train --preset {chosen}`."
        )
    return chosen
