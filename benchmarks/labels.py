"""What the label mix-up does to published numbers: the same predictions of notebook 04, scored with ET = 3 and ET = 2.

Not part of `make bench`: it takes the predictions of a finished `make run`, and measures no time.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import print_table
from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.cases.split import split_cases
from brats_utils.evaluation import prediction_path
from brats_utils.labels import MSD, REGIONS, LabelSchema
from brats_utils.metrics import dice_per_region
from brats_utils.paths import resolve_path
from brats_utils.saving.checkpoints import load_checkpoint

SWAPPED = LabelSchema("swapped", edema=1, necrotic=3, enhancing=2)
"""The widespread reading of MSD's labels: 2 is taken for the enhancing tumour."""


def main(out_dir: str = "runs/tutorial") -> None:
    """Score three ways: both right, both wrong as such tutorials do, and a right model in a wrong evaluation."""
    folder = resolve_path(out_dir)
    config = load_checkpoint(folder / "checkpoints" / "best.pt").config
    cases = find_cases(resolve_path(config["dataset_dir"]))
    test = split_cases(cases, folder / "split.json", seed=config["seed"])["test"]
    ways = {
        "truth and prediction with ET = 3: right": (MSD, MSD),
        "both with ET = 2: what such a tutorial reports": (SWAPPED, SWAPPED),
        "prediction with 3, truth with 2: two groups compared": (MSD, SWAPPED),
    }
    rows = []
    for name, (predicted, true) in ways.items():
        scores = [_score(folder, case, predicted, true) for case in test]
        means = torch.stack(scores).mean(0)
        present = [float(dice[2]) for dice, case in zip(scores, test, strict=True) if _has_et(case)]
        rows.append((name, *(f"{dice:.3f}" for dice in means), f"{np.mean(present):.3f}"))
    header = [f"{len(test)} test cases", *(region.name for region in REGIONS), "ET where truly present"]
    print_table("The same predictions, three ways to score them", header, rows)


def _score(folder: Path, case: Case, predicted: LabelSchema, true: LabelSchema) -> torch.Tensor:
    prediction = replace(case, label=prediction_path(folder, case), label_schema=predicted)
    return dice_per_region(*(read_case(c).regions for c in (prediction, replace(case, label_schema=true))))


def _has_et(case: Case) -> bool:
    return bool(read_case(case).regions[2].any())


if __name__ == "__main__":
    main(*sys.argv[1:])
