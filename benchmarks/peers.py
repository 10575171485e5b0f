"""Our laptop preset beside nnU-Net v2 and MONAI's tutorial recipe, in the same wall time: `make bench ONLY=peers`.

Two hours. Same training cases, same test cases, same cores; nobody sees the validation cases but our preset, which picks
its checkpoint by them. The wall time that our preset needs from files to a finished training is what the others get, and
after that `LONGER` times as much. Predicting is on top, and timed by itself. A contender that is done is not run again.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import psutil
import torch
from accelerate import PartialState

from benchmarks import classic
from benchmarks.common import FOLDER, print_table
from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.nifti import save_volume
from brats_utils.cases.reader import read_case
from brats_utils.cases.split import prepare_dataset, split_cases
from brats_utils.commands.train import train
from brats_utils.config import load_config
from brats_utils.inference import Predictor, build_predictor, predict_scan
from brats_utils.labels import CHANNELS, MSD, labels_to_regions
from brats_utils.metrics import dice_per_region
from brats_utils.model import build_model, choose_device
from brats_utils.paths import resolve_path, write_text
from brats_utils.post_processing import postprocess_regions
from brats_utils.saving.checkpoints import load_checkpoint

HERE = FOLDER / "peers"
NNUNET = "nnunetv2==2.8.1"
LONGER = 5
CONTENDERS = (("ours", 1), ("nnunet", 1), ("monai", 1), ("nnunet", LONGER), ("monai", LONGER))
NAMES = {"ours": "ours, preset `laptop`", "nnunet": f"nnU-Net v2 ({NNUNET})", "monai": "MONAI's tutorial recipe"}
MONAI_EPOCHS = 300
"""Source: 3d_segmentation/brats_segmentation_3d.ipynb of MONAI's tutorials, commit 03e151d; the rest in `classic`."""


def main() -> None:
    """Run every contender by itself, and compare what it predicts."""
    if choose_device().type != "cpu":
        raise RuntimeError("Found a GPU. This compares on a CPU: set CUDA_VISIBLE_DEVICES to nothing.")
    parts, seconds, rows = split_data(), None, []
    for name, times in CONTENDERS:
        out_dir = HERE / f"{name}_{times}"
        if not (out_dir / "result.json").exists():
            shutil.rmtree(out_dir, ignore_errors=True)
            out_dir.mkdir(parents=True)
            command, environment = prepare(name, parts)
            peak = watch([*command, str((seconds or 0) * times), str(out_dir)], environment)
            result = json.loads((out_dir / "times.json").read_text()) | {"peak": peak}
            write_text(out_dir / "result.json", json.dumps(result | {"dice": score(parts["test"], out_dir)}))
        result = json.loads((out_dir / "result.json").read_text())
        seconds = seconds or result["train"]
        predicting = (result["predict"] - result["train"]) / len(parts["test"])
        wall, dice = f"{result['train']:.0f}", [f"{value:.3f}" for value in result["dice"]]
        mean = sum(result["dice"]) / len(result["dice"])
        rows.append(
            (NAMES[name], wall, result["steps"], *dice, f"{mean:.3f}", f"{result['peak']:.1f}", f"{predicting:.1f}")
        )
    header = ("recipe", "wall, s", "steps", "TC", "WT", "ET", "mean Dice", "peak, GB", "predict, s per case")
    print_table("Peers on the laptop phantom", header, rows)


def split_data() -> dict[str, list[Case]]:
    """The phantom of the laptop preset, with the split of notebook 01."""
    config = load_config("laptop")
    plan = {"spacing_mm": config.spacing_mm, "num_cases": config.phantom_cases, "seed": config.seed}
    cases = find_cases(prepare_dataset(resolve_path(config.dataset_dir), **plan))
    return split_cases(cases, HERE / "split.json", seed=config.seed)


def prepare(name: str, parts: dict[str, list[Case]]) -> tuple[list[str], dict[str, str]]:
    """Give the command and the environment of a contender; nnU-Net gets its own Python and its own layout of the data."""
    if name != "nnunet":
        return [sys.executable, "-m", "benchmarks.peers", name], dict(os.environ)
    python = HERE / "venv" / "bin" / "python"
    if not python.with_name("nnUNetv2_plan_and_preprocess").exists():
        venv.create(HERE / "venv", with_pip=True)
        wanted = f"torch=={torch.__version__.partition('+')[0]}"
        subprocess.run([python, "-m", "pip", "install", "--quiet", NNUNET, wanted], check=True)
    shutil.rmtree(HERE / "nnunet", ignore_errors=True)
    raw = HERE / "nnunet" / "raw" / "Dataset001_Phantom"
    for folder, part in (("imagesTr", "train"), ("imagesTs", "test")):
        (raw / folder).mkdir(parents=True)
        for case in parts[part]:
            for index, channel in enumerate(nib.four_to_three(nib.load(case.images[0]))):
                nib.save(channel, raw / folder / f"{case.case_id}_{index:04}.nii.gz")
    (raw / "labelsTr").mkdir()
    for case in parts["train"]:
        shutil.copyfile(case.label, raw / "labelsTr" / f"{case.case_id}.nii.gz")
    nested = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
    document = {"channel_names": {str(i): name for i, name in enumerate(CHANNELS)}}
    document |= {"labels": nested, "regions_class_order": [1, 2, 3], "file_ending": ".nii.gz"}
    write_text(raw / "dataset.json", json.dumps(document | {"numTraining": len(parts["train"])}))
    folders = {f"nnUNet_{kind}": str(HERE / "nnunet" / kind) for kind in ("raw", "preprocessed", "results")}
    return [str(python), str(Path(__file__).with_name("nnunet.py"))], {**os.environ, **folders}


def watch(command: Sequence[str], environment: dict[str, str]) -> float:
    """Run a command, and give the most memory in GB that it and its processes held at once; what they share counts once."""
    process, peak = psutil.Popen(command, env=environment), 0
    while process.poll() is None:
        held = 0
        for member in [process, *process.children(recursive=True)]:
            try:
                held += member.memory_full_info().pss
            except psutil.Error:
                continue  # it has just ended
        peak = max(peak, held)
        time.sleep(1)
    if process.returncode:
        raise RuntimeError(f"{command[1]}: ended with status {process.returncode}.")
    return peak / 1e9


def score(cases: Sequence[Case], out_dir: Path) -> list[float]:
    """Mean Dice of TC, WT and ET over the test cases, by one post-processing for all: ours, which removes components under 1 mL."""
    scores = []
    for case in cases:
        truth = read_case(case)
        labels = torch.from_numpy(nib.load(out_dir / f"{case.case_id}.nii.gz").get_fdata())
        voxel_ml = float(torch.tensor(truth.spacing_mm).prod()) / 1000
        predicted = postprocess_regions(labels_to_regions(labels, MSD), voxel_ml=voxel_ml)
        scores.append(dice_per_region(predicted, truth.regions))
    return torch.stack(scores).mean(0).tolist()


def run_ours(out_dir: Path, _: float) -> dict[str, float]:
    """Train the preset as it is and predict with test-time augmentation, as `predict` does."""
    start, config = time.monotonic(), load_config("laptop", output_dir=str(out_dir))
    shutil.copyfile(HERE / "split.json", out_dir / "split.json")
    train(config, out_dir=str(out_dir), wandb_mode="disabled")
    times = {"train": time.monotonic() - start}
    best = load_checkpoint(out_dir / "checkpoints" / "best.pt")
    parts = split_data()
    times["steps"] = config.max_train_epochs * (len(parts["train"]) // config.batch_size)
    save_predictions(build_predictor([best], flips=True), parts["test"], out_dir)
    return times | {"predict": time.monotonic() - start}


def run_monai(out_dir: Path, budget: float) -> dict[str, float]:
    """Train by the recipe of MONAI's tutorial, 16 filters, until the time is up; a single pass in whole-brain windows."""
    start, config = time.monotonic(), load_config("laptop")
    torch.manual_seed(config.seed)
    roi_size = classic.scale_roi(config.spacing_mm)
    model = build_model(init_filters=16, dropout_prob=0.2)
    trainer = classic.Trainer(model, num_epochs=MONAI_EPOCHS)
    parts = split_data()
    loader = classic.build_loader(parts["train"], config.spacing_mm, roi_size, schema=MSD)
    steps = 0
    while time.monotonic() - start < budget:
        for batch in loader:
            trainer.step(batch)
            steps += 1
            if time.monotonic() - start > budget:
                break
        trainer.schedule.step()
    times = {"train": time.monotonic() - start, "steps": steps}
    save_predictions(Predictor((model.eval(),), config.spacing_mm, (120, 120, 80), MSD), parts["test"], out_dir)
    return times | {"predict": time.monotonic() - start}


def save_predictions(predictor: Predictor, cases: Sequence[Case], out_dir: Path) -> None:
    """Write the labels of every case."""
    for case in cases:
        labels = predict_scan(predictor, read_case(case)).labels
        save_volume(labels, out_dir / f"{case.case_id}.nii.gz", like=case.images[0])


if __name__ == "__main__":
    PartialState(cpu=choose_device().type == "cpu")
    name, budget, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    write_text(folder / "times.json", json.dumps({"ours": run_ours, "monai": run_monai}[name](folder, budget)))
