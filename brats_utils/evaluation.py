"""Scoring a predictor on labelled cases, at the scans' own resolution.

`evaluate_cases` leaves its predictions in a folder. The functions that take it, `out_dir`, and a `schema` read them
there; that is the label convention they are written in.
"""

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from brats_utils.cases.case import Case
from brats_utils.cases.formats import open_image
from brats_utils.cases.geometry import reorient_volume
from brats_utils.cases.nifti import save_volume
from brats_utils.cases.precheck import check_cases
from brats_utils.cases.reader import Scan, read_case
from brats_utils.inference import Prediction, Predictor, predict_scan
from brats_utils.labels import BRATS_2023, REGIONS, LabelSchema, regions_to_labels
from brats_utils.metrics import METRICS, Row, Summary, format_interval, score_row, summarise_scores
from brats_utils.paths import display_path, replacing, say, write_text
from brats_utils.report.charts import plot_calibration, plot_scores
from brats_utils.report.drawing import render_png, stack_figures
from brats_utils.report.figures import plot_comparison
from brats_utils.report.page import ReportCase, build_report
from brats_utils.uncertainty import LOW_EXPECTED_DICE, NUM_BINS, calibration_error, count_calibration, is_doubtful

EVALUATION = ("summary.json", "calibration.npy", "cases.csv")
"""Files of an evaluation beside its predictions; the table comes last, so that it stands for all of them."""

NUM_VIEWED = 3
"""How many of the worst cases to show."""


def predict_case(predictor: Predictor, case: Case, scan: Scan) -> tuple[Prediction, Row]:
    """Predict a labelled case that was read; gives also its `metrics.score_row`, with `expected_dice_<region>`."""
    prediction = predict_scan(predictor, scan)
    known = scan.label_schema.known if scan.label_schema else (True,) * len(REGIONS)
    row = score_row(case.case_id, prediction.regions, scan.regions, spacing_mm=scan.spacing_mm, known=known)
    return prediction, row | {f"expected_dice_{name}": value for name, value in prediction.expected_dice.items()}


def evaluate_cases(predictor: Predictor, cases: Sequence[Case], out_dir: Path) -> pd.DataFrame:
    """Predict, save and score cases one by one; what `read_case` refuses surfaces before the first prediction.

    Writes `out_dir/predictions/<case_id>.nii.gz`, `cases.csv` (a row per case), `summary.json` (by region: mean of
    each metric, its 95% interval, and the mean over cases that have the region; `ece` is the calibration error) and
    `calibration.npy`. An earlier evaluation stays as it is until all of this one is there. The cases' label convention need
    not be the predictor's. Gives the table in `cases.csv`, not rounded.
    """
    check_cases(cases, incomplete=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    calibration = np.zeros((len(REGIONS), NUM_BINS, 3))
    with TemporaryDirectory(prefix=".part-", dir=out_dir) as folder:
        made = Path(folder)
        for case in tqdm(list(cases), desc="Predict and score"):
            scan = read_case(case, incomplete=True)
            prediction, row = predict_case(predictor, case, scan)
            save_volume(prediction.labels, prediction_path(made, case), like=scan.reference)
            calibration += _count_known(prediction, scan, row)
            rows.append(row)
        table = pd.DataFrame(rows)
        table.round(4).to_csv(made / "cases.csv", index=False)
        summary = summarise_scores(rows)
        for name, error in calibration_error(calibration).items():
            summary[name]["ece"] = None if math.isnan(error) else error
        write_text(made / "summary.json", json.dumps(summary, indent=1))
        np.save(made / "calibration.npy", calibration)
        _replace_evaluation(made, out_dir)
    _say_unscored(predictor, cases)
    return table


def _count_known(prediction: Prediction, scan: Scan, row: Row) -> np.ndarray:
    """Count as `count_calibration` does, with zeros for regions that the label does not tell."""
    counts = count_calibration(prediction.probabilities, scan.regions, prediction.brain)
    known = [not math.isnan(float(row[f"dice_{region.name}"])) for region in REGIONS]
    return counts * np.reshape(known, (-1, 1, 1))


def _replace_evaluation(made: Path, out_dir: Path) -> None:
    """Move a finished evaluation into the place of an earlier one."""
    (out_dir / "predictions").mkdir(exist_ok=True)
    for path in [*(made / "predictions").iterdir(), *(made / name for name in EVALUATION)]:
        os.replace(path, out_dir / path.relative_to(made))


def _say_unscored(predictor: Predictor, cases: Sequence[Case]) -> None:
    """Say in how many cases a region is not segmented, or not scored."""
    without_t1gd = sum("T1gd" in case.missing for case in cases)
    if without_t1gd and not predictor.guess_enhancing:
        say(
            f"ET: not segmented without T1gd, in {without_t1gd} of {len(cases)} cases; where ET is present, its Dice is 0."
        )
    whole_only = sum(not all(case.label_schema.known) for case in cases if case.label_schema)
    if whole_only:
        say(f"TC, ET: not scored in {whole_only} of {len(cases)} cases, whose labels outline the whole tumour alone.")


def read_evaluation(out_dir: Path) -> tuple[pd.DataFrame, dict[str, Summary], np.ndarray]:
    """Read what `evaluate_cases` has written: the table, the summary, and the counts of `uncertainty.count_calibration`.

    Raises:
        FileNotFoundError: if it has not.
    """
    missing = [name for name in EVALUATION if not (out_dir / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{display_path(out_dir)}: found no {missing[0]}. Notebook 04_inference makes it: run that first."
        )
    summary = json.loads((out_dir / "summary.json").read_text(encoding="utf-8"))
    return pd.read_csv(out_dir / "cases.csv", dtype={"case_id": str}), summary, np.load(out_dir / "calibration.npy")


def prediction_path(out_dir: Path, case: Case) -> Path:
    """Where `evaluate_cases` leaves the predicted labels of a case."""
    return out_dir / "predictions" / f"{case.case_id}.nii.gz"


def rank_cases(table: pd.DataFrame) -> list[str]:
    """List case ids by mean Dice, the worst first."""
    means = table[[f"dice_{region.name}" for region in REGIONS]].mean(axis=1)
    return [str(case_id) for case_id in table["case_id"][means.sort_values(kind="stable").index]]


def _read_pair(case: Case, out_dir: Path, *, schema: LabelSchema) -> tuple[Scan, torch.Tensor]:
    """Read a labelled case, and the regions on its grid that were predicted."""
    written = replace(case, label=prediction_path(out_dir, case), label_schema=schema)
    return read_case(case, incomplete=True), read_case(written, incomplete=True).regions


def write_official(cases: Sequence[Case], out_dir: Path, folder: Path, *, schema: LabelSchema) -> str:
    """Write what `evaluate_cases` predicted, and the truth, as `brats-evaluation` 0.0.10 reads them, or nothing at all.

    That package takes the first number such as 00001-000 in the name of a reference, and a prediction that ends in it.
    Each case gets one of its own, at the start or the end of its id: `folder/references/00001-000_<case_id>.nii.gz` and
    `folder/predictions/<case_id>_00001-000.nii.gz`, in the label convention `brats2023`: cysts as core, cavities not at all.

    A folder that is not empty is an `OSError`. Gives the command that scores it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=folder.parent) as name:
        made = Path(name) / folder.name
        for number, case in enumerate(cases, 1):
            ends = f"predictions/{case.case_id}_{number:05}-000", f"references/{number:05}-000_{case.case_id}"
            scan, predicted = _read_pair(case, out_dir, schema=schema)
            for regions, end in zip((predicted, scan.regions), ends, strict=True):
                labels = regions_to_labels(regions, BRATS_2023)
                save_volume(labels, made / f"{end}.nii.gz", like=prediction_path(out_dir, case))
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)
    return (
        f"cd {shlex.quote(str(folder))} && brats-evaluate --config gli --ref_path references --pred_path predictions "
        "--summary_json summary.json && brats-parse-metrics seg --json_path summary.json --output_csv_path scores.csv"
    )


def view_case(case: Case, out_dir: Path, *, schema: LabelSchema, note: str = "") -> ReportCase:
    """Load scan, truth and prediction of a case for pictures, reoriented to RAS; `note` stands beside its name: `worst`."""
    scan, predicted = _read_pair(case, out_dir, schema=schema)
    volumes = (scan.image, scan.regions, predicted)
    image, truth, predicted = (reorient_volume(volume, scan.image.affine) for volume in volumes)
    width, depth, height = nib.as_closest_canonical(open_image(scan.reference)).header.get_zooms()[:3]
    return ReportCase(case.case_id, image, truth, predicted, (float(width), float(depth), float(height)), note)


def write_evaluation(out_dir: Path, cases: Sequence[Case], *, title: str, schema: LabelSchema) -> Path:
    """Write `summary.png` (box plots, then the worst cases) and `report.html`, which has the worst in its viewer."""
    table, summary, calibration = read_evaluation(out_dir)
    by_id = {case.case_id: case for case in cases}
    doubtful = [row["case_id"] for row in table.to_dict("records") if is_doubtful(row["expected_dice_mean"])]
    worst: list[ReportCase] = []
    for rank, case_id in enumerate(rank_cases(table)[:NUM_VIEWED]):
        notes = ["worst"] if rank == 0 else []
        if case_id in doubtful:
            notes.append("doubtful")
        worst.append(view_case(by_id[case_id], out_dir, schema=schema, note=", ".join(notes)))
    scores_png = render_png(plot_scores(table))
    pictures = [scores_png]
    for case in worst:
        assert case.prediction is not None
        figure = plot_comparison(case.image, case.truth, case.prediction, title=f"{case.case_id} {case.note}")
        pictures.append(render_png(figure))
    with replacing(out_dir / "summary.png") as temporary:
        stack_figures(pictures).save(temporary, "PNG")
    named = f": {', '.join(doubtful)}" if doubtful else ""
    return build_report(
        out_dir / "report.html",
        title=title,
        facts=[
            f"{len(table)} cases",
            f"the {len(worst)} worst in the viewer",
            f"{len(doubtful)} doubtful (expected Dice below {LOW_EXPECTED_DICE}){named}",
        ],
        scores=table,
        summary=summary,
        cases=worst,
        figures={"Spread of the scores": scores_png, "Calibration": render_png(plot_calibration(calibration))},
    )


def format_summary(summary: Mapping[str, Summary]) -> str:
    """Lay the content of `summary.json` out as a table for the terminal."""
    lines = ["region   Dice   95% interval     region present"]
    for name, scores in summary.items():
        if scores["dice"] is None:
            lines.append(f"{name:6}      -   not in these labels")
            continue
        mean, count = scores.get("dice_where_present"), scores.get("cases_with_region")
        present = f"{mean:.3f} (n={count})" if mean is not None else ""
        lines.append(f"{name:6} {scores['dice']:6.3f}   {format_interval(scores):14}   {present}".rstrip())
    return "\n".join(lines)


def tabulate_summary(summary: Mapping[str, Summary]) -> pd.DataFrame:
    """Lay all metrics out, a row for each region and metric: all cases by BraTS 2023's rule, and those with the region."""
    rows = [
        {
            "region": region.name,
            "metric": metric,
            "all cases": summary[region.name][metric],
            "95% interval": format_interval(summary[region.name], metric=metric),
            "n": summary[region.name]["cases"],
            "region present": summary[region.name][f"{metric}_where_present"],
            "n with region": summary[region.name]["cases_with_region"],
            "definition": definition,
        }
        for region in REGIONS
        for metric, definition in METRICS.items()
    ]
    return pd.DataFrame(rows).set_index(["region", "metric"])
