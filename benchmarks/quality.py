"""Seconds of training until a validation mean Dice, on the laptop phantom."""

import json
import time
from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from accelerate import PartialState

from benchmarks import classic
from benchmarks.common import FOLDER, print_table
from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.split import split_cases
from brats_utils.commands.train import build_loaders, build_state
from brats_utils.config import load_config
from brats_utils.inference import clean_regions, predict_logits
from brats_utils.labels import MSD
from brats_utils.metrics import dice_per_region
from brats_utils.model import build_model, choose_device
from brats_utils.paths import REPOSITORY, resolve_path, write_text
from brats_utils.training import train_epochs

BUDGET = 5.5
"""How many times our seconds the classic recipe gets."""
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75)
Curve = list[tuple[float, float]]


def main() -> None:
    """Train both by turns, so that a busy moment of the machine hits both, and compare when each passed a level."""
    config = load_config("laptop", {"validation_intervals": 5})
    torch.manual_seed(config.seed)
    *loaders, _ = build_loaders(config, FOLDER / "quality", processes=PartialState(cpu=choose_device().type == "cpu"))
    cases = find_cases(resolve_path(config.dataset_dir))
    parts = split_cases(cases, FOLDER / "quality" / "split.json", seed=config.seed)
    turns = {"ours": train_ours(config, *loaders), "classic": train_classic(config, parts["train"], parts["val"])}
    seconds, curves = {"ours": 0.0, "classic": 0.0}, {name: [(0.0, 0.0)] for name in turns}
    while True:
        name = "classic" if seconds["classic"] < BUDGET * seconds["ours"] else "ours"
        turn = next(turns[name], None)
        if turn is None:
            break
        seconds[name] += turn[0]
        if turn[1] is not None:
            curves[name].append((seconds[name], turn[1]))
            print(f"{name}: {seconds[name]:.0f} s, validation mean Dice {turn[1]:.3f}", flush=True)
            write_text(FOLDER / "quality.json", json.dumps(curves))
    rows = []
    for level in LEVELS:
        ours, other = (find_time(curves[name], level) for name in ("ours", "classic"))
        if ours is not None:
            ratio = f"{other / ours:.1f}" if other else f"more than {seconds['classic'] / ours:.1f}"
            rows.append(
                (f"{level:.2f}", f"{ours:.0f}", f"{other:.0f}" if other else f"not in {seconds['classic']:.0f}", ratio)
            )
    print_table("Time to quality", ["validation mean Dice", "ours, s", "classic, s", "classic / ours"], rows)
    plot(curves)


def train_ours(config, train_loader, val_loader) -> Iterator[tuple[float, float | None]]:
    """Yield, an epoch at a time, its seconds of training and the mean Dice if there was a validation."""
    state = build_state(config, num_steps=config.max_train_epochs * len(train_loader))
    plan = {"max_epochs": config.max_train_epochs, "validation_intervals": config.validation_intervals}
    place = {"roi_size": config.inference_roi_size, "spacing_mm": config.spacing_mm, "seed": config.seed}
    for result in train_epochs(state, train_loader, val_loader, **plan, **place):
        yield result.seconds, None if result.dice is None else result.mean_dice


def train_classic(config, train: list[Case], val: list[Case]) -> Iterator[tuple[float, float | None]]:
    """Do the same with the classic recipe, on the same network."""
    roi_size = classic.scale_roi(config.spacing_mm)
    model = build_model(init_filters=config.init_filters, dropout_prob=0.2)
    trainer = classic.Trainer(model, num_epochs=50)
    loader = classic.build_loader(train, config.spacing_mm, roi_size, schema=MSD)
    prepare = classic.build_transform(config.spacing_mm, roi_size, schema=MSD, random=False)
    validation = [prepare(classic.name_files(case)) for case in val]
    while True:
        start = time.perf_counter()
        for batch in loader:
            trainer.step(batch)
        trainer.schedule.step()
        seconds = time.perf_counter() - start
        model.eval()
        scores = []
        for case in validation:  # the crop it was trained on holds nearly the whole head, so the window does too
            logits = predict_logits(model, case["image"][None], roi_size=(128, 128, 80))
            predicted = clean_regions(logits[0] > 0, voxel_ml=config.spacing_mm**3 / 1000)
            scores.append(dice_per_region(predicted, case["label"]))
        model.train()
        yield seconds, float(torch.stack(scores).mean())


def find_time(curve: Curve, level: float) -> float | None:
    """Find when a curve first reached a level."""
    return next((seconds for seconds, dice in curve if dice >= level), None)


def plot(curves: dict[str, Curve]) -> None:
    """Draw Dice against seconds of training."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, colour in (("ours", "#1f77b4"), ("classic", "#888888")):
        axes.plot(*zip(*curves[name], strict=True), "o-", ms=3, color=colour, label=name)
    axes.set(
        xlabel="seconds of training",
        ylabel="validation mean Dice",
        ylim=(0, 1),
        title="Time to quality, laptop phantom",
    )
    axes.legend(loc="lower right")
    figure.savefig(REPOSITORY / "docs" / "images" / "time_to_quality.png", dpi=110)
