"""A checkpoint of the phantom on real scans: `python -m benchmarks.real CHECKPOINT FOLDER[:SCHEMA] …`.

Not part of `make bench`: it needs labelled scans of patients, which are not in the repository, and measures no time.
Where a folder has no dataset.json, its schema says how the labels are numbered.
"""

import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmarks.common import FOLDER, print_table
from brats_utils.cases.layouts import find_cases
from brats_utils.evaluation import evaluate_cases, view_case
from brats_utils.inference import build_predictor
from brats_utils.labels import REGIONS, SCHEMAS
from brats_utils.paths import REPOSITORY
from brats_utils.report.figures import plot_comparison, render_png, stack_figures
from brats_utils.saving.checkpoints import load_checkpoint


def main(checkpoint: str, *folders: str) -> None:
    """Score every case with eight mirrored looks, print a row each, draw the slices with most tumour and most errors."""
    predictor = build_predictor([load_checkpoint(Path(checkpoint))], flips=True)
    rows, pictures = [], {"real": [], "real_errors": []}
    for number, argument in enumerate(folders):
        name, _, schema_name = argument.partition(":")
        out_dir = FOLDER / f"real-{number}"
        cases = find_cases(Path(name).resolve(), schema=SCHEMAS.get(schema_name))
        table, _ = evaluate_cases(predictor, cases, out_dir)
        rows += [_row(row) for _, row in table.iterrows()]
        for case in tqdm(cases, desc="Draw"):
            seen = view_case(case, out_dir, schema=predictor.schema)
            wrong = (seen.truth != seen.prediction).any(0).sum((0, 1))
            for kind, slice_idx in (("real", None), ("real_errors", int(wrong.argmax()))):
                drawn = {"title": seen.case_id, "slice_idx": slice_idx}
                pictures[kind].append(plot_comparison(seen.image, seen.truth, seen.prediction, **drawn))
    header = ["case", *(f"{r.name}, true / found mL" for r in REGIONS), *(f"{r.name} Dice" for r in REGIONS)]
    print_table(f"{Path(checkpoint).name} on real scans", header, rows)
    for kind, figures in pictures.items():
        page = stack_figures([render_png(figure) for figure in figures])
        page.save(REPOSITORY / "docs" / "images" / f"{kind}.png")


def _row(scores: pd.Series) -> list[str]:
    volumes = []
    for region in REGIONS:
        true, error = scores[f"volume_ml_{region.name}"], scores[f"volume_error_ml_{region.name}"]
        volumes.append(f"{true:.1f} / {true + error:.1f}")
    return [scores["case_id"], *volumes, *(f"{scores[f'dice_{r.name}']:.2f}" for r in REGIONS)]


if __name__ == "__main__":
    main(*sys.argv[1:])
