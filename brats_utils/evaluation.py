"""Scoring a predictor on labelled cases, at the scans' own resolution."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from brats_utils.cases.layouts import LabelledScan
from brats_utils.cases.reader import ScanError, list_files, open_volume, read_scan
from brats_utils.cases.truth import AnyCase, load_truth, reference_path
from brats_utils.inference import Prediction, Predictor, predict_scan, save_volume
from brats_utils.labels import REGIONS, LabelSchema
from brats_utils.metrics import METRICS, Row, Summary, format_interval, score_row, summarise_scores
from brats_utils.paths import replacing, write_text
from brats_utils.report.charts import plot_calibration, plot_scores
from brats_utils.report.figures import plot_comparison, render_png, stack_figures
from brats_utils.report.page import ReportCase, build_report
from brats_utils.report.slices import turn_volume
from brats_utils.uncertainty import calibration_error, count_calibration

NUM_VIEWED = 3
"""How many of the worst cases to show."""


def predict_case(
    predictor: Predictor, case: AnyCase, *, truth_schema: LabelSchema | None = None
) -> tuple[Prediction, Row]:
    """Predict one labelled case and score it.

    Args:
        predictor: networks and settings.
        case: scans and label.
        truth_schema: numbering of the label, where it is not the predictor's.

    Returns:
        The prediction on the scan's grid, and the row of `metrics.score_row` with `expected_dice_<region>` beside it.

    Raises:
        OSError, LabelError: see `load_truth`.
        ScanError: see `scans.read_scan`; it names the case or its file.
    """
    return _score_case(predictor, case, load_truth(case, schema=truth_schema or predictor.schema))


@contextmanager
def _naming(case: AnyCase) -> Iterator[None]:
    try:
        yield
    except ScanError as error:
        raise ScanError(f"{case.case_id}: {error}") from None


def _score_case(predictor: Predictor, case: AnyCase, truth: torch.Tensor) -> tuple[Prediction, Row]:
    with _naming(case):
        scan = read_scan(case.image)
    prediction = predict_scan(predictor, scan)
    row = score_row(case.case_id, prediction.regions, truth, spacing_mm=scan.spacing_mm)
    return prediction, row | {f"expected_dice_{name}": value for name, value in prediction.expected_dice.items()}


def evaluate_cases(
    predictor: Predictor, cases: Sequence[AnyCase], out_dir: Path, *, truth_schema: LabelSchema | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Predict, save and score cases one by one; a wrong label or missing scan surfaces before the first prediction.

    Writes `out_dir/predictions/<case_id>.nii.gz`, `cases.csv` (a row a case) and `summary.json` (by region: mean of
    each metric, its 95% interval, and the mean over cases that have the region; `ece` is the calibration error). Both
    of an earlier evaluation go before the first prediction: they would speak of others than those beside them.

    Args:
        predictor: networks and settings.
        cases: what to score.
        out_dir: folder to write to.
        truth_schema: numbering of the labels, where it is not the predictor's.

    Returns:
        The table in `cases.csv`, and the counts of `uncertainty.count_calibration` over all cases.

    Raises:
        OSError, LabelError: see `load_truth`.
        ScanError: see `scans.read_scan`; it names the case or its file.
    """
    schema = truth_schema or predictor.schema
    for case in cases:
        with _naming(case):
            for path in list_files(case.image):
                open_volume(path)
        load_truth(case, schema=schema)
    for name in ("cases.csv", "summary.json"):
        (out_dir / name).unlink(missing_ok=True)
    rows, counts = [], []
    for case in tqdm(list(cases), desc="Predict and score"):
        truth = load_truth(case, schema=schema)
        prediction, row = _score_case(predictor, case, truth)
        save_volume(prediction.labels, prediction_path(out_dir, case), like=reference_path(case))
        counts.append(count_calibration(prediction.probabilities, truth, prediction.brain))
        rows.append(row)
    table, calibration = pd.DataFrame(rows), np.sum(counts, axis=0)
    with replacing(out_dir / "cases.csv") as temporary:
        table.round(4).to_csv(temporary, index=False)
    summary = summarise_scores(rows)
    for name, error in calibration_error(calibration).items():
        summary[name]["ece"] = error
    write_text(out_dir / "summary.json", json.dumps(summary, indent=1))
    return table, calibration


def prediction_path(out_dir: Path, case: AnyCase) -> Path:
    """Where `evaluate_cases` leaves the predicted labels of a case."""
    return out_dir / "predictions" / f"{case.case_id}.nii.gz"


def rank_cases(table: pd.DataFrame) -> list[str]:
    """List case ids by mean Dice, the worst first."""
    means = table[[f"dice_{region.name}" for region in REGIONS]].mean(axis=1)
    return [str(case_id) for case_id in table["case_id"][means.sort_values(kind="stable").index]]


def view_case(
    case: AnyCase, out_dir: Path, *, schema: LabelSchema, truth_schema: LabelSchema | None = None, note: str = ""
) -> ReportCase:
    """Load scan, truth and saved prediction of a case for pictures, turned to RAS.

    Args:
        case: scored by `evaluate_cases`.
        out_dir: its folder.
        schema: numbering of the prediction.
        truth_schema: numbering of the label, where it is another.
        note: a few words beside its name, e.g. `worst`.
    """
    scan = read_scan(case.image)
    truth = load_truth(case, schema=truth_schema or schema)
    predicted = load_truth(LabelledScan(case.case_id, case.image, prediction_path(out_dir, case)), schema=schema)
    image, truth, predicted = (turn_volume(volume, scan.image.affine) for volume in (scan.image, truth, predicted))
    width, depth, height = nib.as_closest_canonical(nib.load(reference_path(case))).header.get_zooms()[:3]
    return ReportCase(case.case_id, image, truth, predicted, (float(width), float(depth), float(height)), note)


def write_evaluation(
    out_dir: Path,
    cases: Sequence[AnyCase],
    table: pd.DataFrame,
    calibration: np.ndarray,
    *,
    title: str,
    schema: LabelSchema,
    truth_schema: LabelSchema | None = None,
) -> Path:
    """Write `summary.png` (box plots, then the worst cases) and `report.html` with the worst cases in its viewer.

    Args:
        out_dir: folder that `evaluate_cases` wrote to.
        cases: those that it scored.
        table: what it returned.
        calibration: what it returned.
        title: heading.
        schema: numbering of the predictions.
        truth_schema: numbering of the labels, where it is another.

    Returns:
        Path of the report.
    """
    by_id, worst = {case.case_id: case for case in cases}, rank_cases(table)[:NUM_VIEWED]
    viewed = [
        view_case(by_id[case_id], out_dir, schema=schema, truth_schema=truth_schema, note="worst" if not rank else "")
        for rank, case_id in enumerate(worst)
    ]
    spread = render_png(plot_scores(table))
    worst_first = [plot_comparison(v.image, v.truth, v.prediction, title=f"{v.case_id} {v.note}") for v in viewed]
    with replacing(out_dir / "summary.png") as temporary:
        stack_figures([spread, *(render_png(figure) for figure in worst_first)]).save(temporary, "PNG")
    summary = json.loads((out_dir / "summary.json").read_text(encoding="utf-8"))
    return build_report(
        out_dir / "report.html",
        title=title,
        facts=[f"{len(table)} cases", f"the {len(viewed)} worst in the viewer"],
        scores=table,
        summary=summary,
        cases=viewed,
        figures={"Spread of the scores": spread, "Calibration": render_png(plot_calibration(calibration))},
    )


def format_summary(summary: Mapping[str, Summary]) -> str:
    """Lay the content of `summary.json` out as a table for the terminal."""
    lines = ["region   Dice   95% interval     where present"]
    for name, scores in summary.items():
        where_present, count = scores.get("dice_where_present"), scores.get("cases_with_region")
        present = f"{where_present:.3f} (n={count})" if where_present is not None else ""
        lines.append(f"{name:6} {scores['dice']:6.3f}   {format_interval(scores):14}   {present}".rstrip())
    return "\n".join(lines)


def tabulate_summary(summary: Mapping[str, Summary]) -> pd.DataFrame:
    """Lay all metrics out, a row for each region and metric: all cases by the BraTS rule, and those that have the region."""
    rows = []
    for region in REGIONS:
        scores = summary[region.name]
        for metric in METRICS:
            rows.append(
                {
                    "region": region.name,
                    "metric": metric,
                    "all cases": scores[metric],
                    "95% interval": format_interval(scores, metric=metric),
                    "n": scores["cases"],
                    "where present": scores[f"{metric}_where_present"],
                    "n present": scores["cases_with_region"],
                }
            )
    return pd.DataFrame(rows).set_index(["region", "metric"])
