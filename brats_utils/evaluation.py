"""Scoring a checkpoint on every labelled case of a folder, at the scans' own resolution."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from brats_utils.data import Case
from brats_utils.inference import Prediction, predict_scan, save_labels
from brats_utils.labels import LabelSchema, check_label_values, labels_to_regions
from brats_utils.metrics import Summary, score_row, summarise_dice
from brats_utils.paths import display_path, replacing, write_text


def load_truth(case: Case, *, schema: LabelSchema) -> torch.Tensor:
    """Read the regions of a case on its own voxel grid.

    Returns:
        (3, X, Y, Z) bool.

    Raises:
        LabelError: a value that the schema does not list.
    """
    values = np.asanyarray(nib.load(case.label).dataobj)
    check_label_values(np.unique(values).tolist(), schema, source=display_path(case.label))
    return labels_to_regions(torch.from_numpy(values.astype(np.uint8)), schema)


def predict_case(
    model: torch.nn.Module, case: Case, *, spacing_mm: float, roi_size: tuple[int, int, int], schema: LabelSchema,
    precision: torch.dtype = torch.float32,
) -> tuple[Prediction, dict[str, Any]]:  # fmt: skip
    """Predict one labelled case and score it; arguments as for `inference.predict_scan`.

    Returns:
        The prediction on the scan's grid and the row of `metrics.score_row`.
    """
    prediction = predict_scan(
        model, case.image, spacing_mm=spacing_mm, roi_size=roi_size, schema=schema, precision=precision
    )
    return prediction, score_row(case.case_id, prediction.regions, load_truth(case, schema=schema))


def evaluate_cases(
    model: torch.nn.Module, cases: Iterable[Case], out_dir: Path, *, spacing_mm: float, roi_size: tuple[int, int, int],
    schema: LabelSchema, precision: torch.dtype = torch.float32,
) -> pd.DataFrame:  # fmt: skip
    """Predict, save and score cases one by one.

    Writes `out_dir/predictions/<case_id>.nii.gz`, `cases.csv` (a row a case) and `summary.json`
    (by region: mean Dice by the BraTS rule, its 95% interval, and over cases that have the region).

    Args:
        model: network in evaluation mode.
        cases: what to score.
        out_dir: folder to write to.
        spacing_mm: voxel size the model was trained at.
        roi_size: sliding window in voxels.
        schema: numbering of the labels, read and written.
        precision: dtype for autocast.

    Returns:
        The table in `cases.csv`.
    """
    rows = []
    for case in tqdm(list(cases), desc="Predict and score"):
        prediction, row = predict_case(
            model, case, spacing_mm=spacing_mm, roi_size=roi_size, schema=schema, precision=precision
        )
        save_labels(prediction.labels, out_dir / "predictions" / f"{case.case_id}.nii.gz", like=case.image)
        rows.append(row)
    table = pd.DataFrame(rows)
    with replacing(out_dir / "cases.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_text(out_dir / "summary.json", json.dumps(summarise_dice(rows), indent=1))
    return table


def format_summary(summary: dict[str, Summary]) -> str:
    """Lay the content of `summary.json` out as a table for the terminal."""
    lines = ["region   Dice   95% interval   where present"]
    for name, scores in summary.items():
        where_present, count = scores.get("dice_where_present"), scores.get("cases_with_region")
        present = f"{where_present:.3f} (n={count})" if where_present is not None else ""
        lines.append(f"{name:6} {scores['dice']:6.3f}   {scores['low']:.3f}-{scores['high']:.3f}    {present}".rstrip())
    return "\n".join(lines)
