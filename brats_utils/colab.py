"""How a notebook begins, and what is special in Google Colab: packages, secrets, Drive, and a GPU that differs from visit to visit.

Imports nothing that Colab lacks: the bootstrap cell calls `set_up` before anything is installed.
"""

import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import torch

from brats_utils.memory import keep_freed_memory
from brats_utils.paths import REPOSITORY

IN_COLAB = "google.colab" in sys.modules
DRIVE = Path("/content/drive")
SMALL_GPU_GB = 24
GPU_PRESETS = ("colab", "full", "classic")


def set_up() -> None:
    """Begin a notebook: install what Colab lacks; elsewhere, go from the notebooks' folder up to the repository's.

    There relative paths start; in Colab in its first folder, and under papermill in the folder that it was called from.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")  # we show no widgets
    keep_freed_memory()
    if not IN_COLAB:
        if Path("01_setup.ipynb").is_file() and Path.cwd().is_relative_to(REPOSITORY):
            os.chdir(REPOSITORY)
        return
    if not list(metadata.distributions(name="brats-utils")):  # it is installed last
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", REPOSITORY / "colab_requirements.txt"], check=True)
        subprocess.run([*pip, "--no-deps", "--editable", REPOSITORY], check=True)  # Colab has the rest
    read_secret()


def read_secret(name: str = "WANDB_API_KEY") -> None:
    """Put a secret of Colab's key sidebar into the environment; without one, or without access, nothing changes.

    The value is never printed. `tracking.resolve_mode` then says whether the run is online or offline.
    """
    from google.colab import userdata

    try:
        os.environ.setdefault(name, userdata.get(name))
    except Exception as error:  # not there, or the reader said no; Colab raises errors of its own
        print(f"Colab secrets: no {name} ({type(error).__name__}). Add one in the sidebar, under the key, to use it.")


def mount_drive(path: str) -> Path:
    """Mount Google Drive and give the place of a path in it, such as `brats/run1`; outside Colab an `OSError`."""
    if not IN_COLAB:
        raise OSError(
            f"drive:{path}: found no Google Drive, which is mounted in Colab alone. Give output_dir as a folder."
        )
    from google.colab import drive

    drive.mount(str(DRIVE))
    return DRIVE / "MyDrive" / path


def choose_preset(preset: str) -> str:
    """Turn the preset `auto` into one that suits the machine, and say so; leave any other as it is.

    In Colab the GPU decides, and with one the data is MSD (7 GB). Elsewhere `auto` is `laptop`, GPU or not: nothing
    large is downloaded and nothing long is started unasked.
    """
    if preset != "auto":
        if preset in GPU_PRESETS and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
            print(
                f"preset: {preset} is made for a GPU, found none. A step will take a minute or more; `laptop` suits a CPU."
            )
        return preset
    if not IN_COLAB or not torch.cuda.is_available():
        print("preset: laptop, on the phantom" + (". For a GPU: Runtime, Change runtime type." if IN_COLAB else ""))
        return "laptop"
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 2**30
    chosen = "colab" if memory_gb <= SMALL_GPU_GB else "full"
    print(f"preset: {chosen}, for {torch.cuda.get_device_name(0)} with {memory_gb:.0f} GB, on MSD (7 GB to download).")
    return chosen
