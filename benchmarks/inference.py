"""Seconds, memory and Dice of a prediction at 1 mm: the classic way against ours, with the same weights."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from monai.inferers import sliding_window_inference
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)

from benchmarks.common import FOLDER, print_table, time_interleaved
from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.cases.split import split_cases
from brats_utils.commands.train import train
from brats_utils.config import load_config
from brats_utils.inference import Predictor, build_predictor, predict_scan
from brats_utils.labels import REGIONS
from brats_utils.metrics import dice_per_region
from brats_utils.paths import resolve_path
from brats_utils.saving.checkpoints import load_checkpoint

OUT = FOLDER / "inference"
SETTINGS = {
    "roi_size": (96, 96, 96), "inference_roi_size": (96, 96, 96), "phantom_cases": 10, "max_train_epochs": 30,
    "validation_intervals": 30, "dropout_prob": 0.0, "initial_learning_rate": 3e-3, "deterministic": True,
}  # fmt: skip
WINDOW = (240, 240, 160)
"""Of the classic inference: larger than the scan, so its overlap does nothing. Source: MONAI's BraTS tutorial."""


WHOLE_BRAIN = (144, 184, 152)
"""Of ours: one window that holds the brain's box. With 96^3, as in the training, these weights did worse and slower."""


def main() -> None:
    """Train for some minutes at 1 mm, then time both on the test cases, by turns."""
    config = load_config("colab", SETTINGS, data="phantom", output_dir=str(OUT))
    if not (OUT / "checkpoints" / "best.pt").is_file():
        train(config, out_dir=str(OUT), wandb_mode="disabled")
    cases, predictor = _prepare()
    ways = {"classic": predict_classic, "ours": predict_ours}
    scores = {
        name: torch.stack([_score(way(predictor, case), case) for case in cases]).mean(0) for name, way in ways.items()
    }
    contenders: dict[str, Callable[[], object]] = {
        name: partial(way, predictor, cases[0]) for name, way in ways.items()
    }
    seconds = time_interleaved(contenders, repeats=3, warmup=0)
    memory = {name: _measure_memory(name) for name in ways}
    rows = [
        (
            name,
            f"{seconds[name]:.1f}",
            f"{memory[name]:.1f}",
            *(f"{dice:.3f}" for dice in scores[name]),
            f"{scores[name].mean():.4f}",
        )
        for name in ways
    ]
    header = ["", "file to labels, s", "peak memory, GB", *(region.name for region in REGIONS), "mean Dice"]
    print_table(f"Inference at 1 mm, 240 x 240 x 155, {len(cases)} cases", header, rows)
    print(f"classic / ours: {seconds['classic'] / seconds['ours']:.1f} times the seconds")


def predict_classic(predictor: Predictor, case: Case) -> torch.Tensor:
    """Predict the whole uncropped scan in one window and float32, as the classic tutorial does."""
    transform = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            EnsureTyped("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        ]
    )
    image = transform({"image": str(case.images[0])})["image"].as_tensor()[None]
    with torch.no_grad():
        logits = sliding_window_inference(image, WINDOW, 1, predictor.models[0], overlap=0.5)
    return logits[0].sigmoid() > 0.5  # type: ignore[union-attr,index]


def predict_ours(predictor: Predictor, case: Case) -> torch.Tensor:
    """Predict as `python -m brats_utils predict --no-flips` does: in a single pass, like the classic way."""
    return predict_scan(predictor, read_case(case)).regions


def _prepare() -> tuple[list[Case], Predictor]:
    checkpoint = load_checkpoint(OUT / "checkpoints" / "best.pt")
    cases = find_cases(resolve_path(checkpoint.config["dataset_dir"]))
    predictor = replace(build_predictor([checkpoint]), roi_size=WHOLE_BRAIN)
    return split_cases(cases, OUT / "split.json", seed=0)["test"], predictor


def _score(regions: torch.Tensor, case: Case) -> torch.Tensor:
    return dice_per_region(regions, read_case(case).regions)


def _measure_memory(name: str) -> float:
    """Peak resident memory in GB of a process that predicts one case and does nothing else."""
    command = [sys.executable, "-m", "benchmarks.inference", name]
    finished = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(finished.stdout.split()[-1])


if __name__ == "__main__":
    _cases, _predictor = _prepare()
    {"classic": predict_classic, "ours": predict_ours}[sys.argv[1]](_predictor, _cases[0])
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # getrusage's includes the parent's
    print(int(peak[1]) / 1e6 if peak else float("nan"))
