"""What the pretrained network is worth to someone with few labelled patients: `make bench ONLY=few`.

Not part of a plain `make bench`: it needs labelled scans of 18 patients, which are not in the repository, in
`../shared/real` or the folder that BRATS_REAL_DATA names. They are split in two halves; a network is trained on some of
one half and scored on all of the other, then the other way round. The scores are of a single pass, on the model's grid of
2 mm: `evaluate` uses test-time augmentation, on the scans' own. A fine-tuned network is scored together with the
pretrained one, too, their probabilities averaged, as `--checkpoint pretrained FILE` does. What is finished is kept in
runs/bench/few.json and not done again.
"""

import copy
import hashlib
import json
import os
import random
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from monai.networks.nets import SegResNet

from benchmarks.common import FOLDER, print_table
from brats_utils.cases.layouts import find_cases
from brats_utils.commands.train import build_state
from brats_utils.config import FINE_TUNING, Config, load_config
from brats_utils.inference import Predictor, predict_members
from brats_utils.labels import MSD, REGIONS, SCHEMAS, labels_to_regions, regions_to_labels
from brats_utils.loading import CaseDataset, build_train_loader
from brats_utils.metrics import dice_per_region
from brats_utils.model import choose_device, choose_precision
from brats_utils.paths import REPOSITORY, write_text
from brats_utils.post_processing import postprocess_regions
from brats_utils.saving.checkpoints import PRETRAINED
from brats_utils.training import train_epoch
from brats_utils.transforms import build_cached_transform, build_train_transform

LABEL_SCHEMAS = {"brats2021": "brats2021", "brats_africa": "brats2023"}
"""Folders of real scans, six patients and twelve, and the convention of their labels."""
COUNTS = (3, 6, 9)
STEPS = 200
SEED = 0
Patient = dict[str, Any]
"""A case as `build_cached_transform` prepares it, its label in MSD's convention."""


def main(steps: int = STEPS) -> None:
    """Train from random and from pretrained weights on 3, 6 and 9 patients; print a table and draw a figure."""
    real_dir = Path(os.environ.get("BRATS_REAL_DATA", REPOSITORY.parent / "shared" / "real"))
    if not all((real_dir / name).is_dir() for name in LABEL_SCHEMAS):
        print(
            f"few: skipped, {' and '.join(LABEL_SCHEMAS)} are not both in {real_dir}; BRATS_REAL_DATA names another folder"
        )
        return
    starts = {"scratch": load_config("laptop", FINE_TUNING), "pretrained": load_config("laptop", init="pretrained")}
    halves = load_halves(real_dir, spacing_mm=starts["scratch"].spacing_mm)
    path, weights = FOLDER / "few.json", hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()
    settings = f"rate {FINE_TUNING['initial_learning_rate']}, window {starts['scratch'].inference_roi_size}"
    done = json.loads(path.read_text()) if path.is_file() else {}
    for count, half, start in product((0, *COUNTS), (0, 1), starts):
        key, made_with = name_row(steps, count, half, start), f"{weights if start == 'pretrained' else ''}, {settings}"
        if (count == 0 and start == "scratch") or done.get(key, {}).get("weights") == made_with:
            continue
        dice, seconds = train_and_score(halves[half][:count], halves[1 - half], starts[start], steps=steps)
        done[key] = {
            "weights": made_with,
            "dice": {name: rows.tolist() for name, rows in dice.items()},
            "seconds": seconds,
        }
        write_text(path, json.dumps(done))
        means = {name: round(float(rows.nanmean(0).mean()), 3) for name, rows in dice.items()}
        print(f"{key}: mean Dice {means}, {seconds:.0f} s", flush=True)
    report(done, steps)


def name_row(steps: int, count: int, half: int, start: str) -> str:
    """Name what was done as few.json does."""
    return f"{steps} steps on {count} patients of half {half} from {start}"


def load_halves(real_dir: Path, *, spacing_mm: float) -> list[list[Patient]]:
    """Prepare all patients, in two halves; of each three that follow one another, one is of the first folder."""
    random_order, prepare = random.Random(SEED), build_cached_transform(spacing_mm)
    folders = []
    for name, schema in LABEL_SCHEMAS.items():
        cases = find_cases(real_dir / name, schema=SCHEMAS[schema])
        folders.append(random_order.sample(cases, len(cases)))
    first, second = folders
    halves: list[list[Patient]] = [[], []]
    for index, case in enumerate(first):
        for member in (case, *second[2 * index : 2 * index + 2]):
            patient = prepare(member)
            regions = labels_to_regions(patient["label"], member.label_schema)
            halves[index % 2].append({**patient, "label": regions_to_labels(regions, MSD)[None]})
    return halves


def train_and_score(
    patients: list[Patient], others: list[Patient], config: Config, *, steps: int
) -> tuple[dict[str, torch.Tensor], float]:
    """Train on some patients, on none if there are none, and score the others.

    Batches are those of notebook 03: four patients, or three where there are no more.

    Returns:
        What `score` gives for the network, under `scratch` or `pretrained`, and under `both` for it and its start
        together; seconds of training.
    """
    torch.manual_seed(config.seed)
    state = build_state(config, num_steps=steps)
    start, began = copy.deepcopy(state.model), time.perf_counter()
    if patients:
        random_part = build_train_transform(config.roi_size, schema=MSD, appearance=config.appearance)
        train_set = CaseDataset(patients, random_part, seed=config.seed)
        loader = build_train_loader(train_set, batch_size=config.batch_size, num_workers=0, seed=config.seed)
        while state.epoch < steps // len(loader):
            train_epoch(state, loader, seed=config.seed)
            state.epoch, state.batch_losses = state.epoch + 1, []
    seconds = time.perf_counter() - began
    if not config.init:
        return {"scratch": score([state.model], others, config)}, seconds
    return {
        name: score(networks, others, config)
        for name, networks in (("pretrained", [state.model]), ("both", [start, state.model]))
    }, seconds


def score(networks: list[SegResNet], patients: list[Patient], config: Config) -> torch.Tensor:
    """Score networks whose probabilities are averaged: (patients, 3) float64 Dice, NaN where the region is absent."""
    models, precision = tuple(network.eval() for network in networks), choose_precision(choose_device())
    predictor, rows = Predictor(models, config.spacing_mm, config.inference_roi_size, MSD, precision), []
    for patient in patients:
        probabilities = torch.stack(list(predict_members(predictor, patient["image"].float()))).mean(0)
        truth = labels_to_regions(patient["label"][0], MSD)
        found = postprocess_regions(probabilities > 0.5, voxel_ml=config.spacing_mm**3 / 1000)
        rows.append(dice_per_region(found, truth).where(truth.flatten(1).any(1), torch.nan))
    return torch.stack(rows)


def report(done: dict[str, Any], steps: int) -> None:
    """Print means over the patients that have the region, both halves together, and draw the means of these."""
    curves: dict[str, list[tuple[int, float]]] = {"scratch": [], "pretrained": [], "both": []}
    rows = []
    for count in (0, *COUNTS):
        cells, seconds = [], []
        for kind, curve in curves.items():
            keys = [name_row(steps, count, half, "scratch" if kind == "scratch" else "pretrained") for half in (0, 1)]
            found = [done[key] for key in keys if key in done]
            if not found:
                cells += ["-"] * (len(REGIONS) + 1)
                continue
            means = torch.tensor([dice for row in found for dice in row["dice"][kind]]).nanmean(0)
            cells += [f"{value:.3f}" for value in (*means, means.mean())]
            curve.append((count, float(means.mean())))
            seconds += [row["seconds"] for row in found]
        rows.append((count, *cells, f"{sum(seconds) / len(seconds):.0f}"))
    columns = [f"{start} {name}" for start in curves for name in (*(region.name for region in REGIONS), "mean")]
    title = f"Dice on patients not trained on, {steps} steps"
    print_table(title, ["labelled patients", *columns, "s a training"], rows)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    labels = {
        "both": "fine-tuned and pretrained, averaged",
        "pretrained": "fine-tuned",
        "scratch": "from random weights",
    }
    for (kind, label), colour in zip(labels.items(), ("#D55E00", "#1f77b4", "#888888"), strict=True):
        axes.plot(*zip(*curves[kind], strict=True), "o-", color=colour, label=label)
    axes.set(xlabel="labelled patients trained on", ylabel="mean Dice on other patients", title=title)
    axes.set(xticks=(0, *COUNTS), ylim=(0, 1))
    axes.legend(loc="best")
    folder = REPOSITORY / "docs" / "images" if steps == STEPS else FOLDER
    figure.savefig(folder / "few.png", dpi=110)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
