"""Segmenting own scans: one patient, or a folder of them where one bad patient does not stop the rest."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from tqdm import tqdm

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.files import PREDICTED
from brats_utils.cases.geometry import reorient_volume
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.nifti import save_volume
from brats_utils.cases.reader import Scan, read_case
from brats_utils.inference import Prediction, Predictor, predict_scan
from brats_utils.labels import FILE_NAMES, REGIONS
from brats_utils.paths import display_path, publish, replacing, write_text
from brats_utils.report.drawing import render_png
from brats_utils.report.figures import plot_prediction
from brats_utils.transforms import explain_failure
from brats_utils.uncertainty import is_doubtful

DISCLAIMER = "Not for clinical use."

NATIVE = (*(f"native/{name}.nii.gz" for name in FILE_NAMES.values()), "native/segmentation.dcm")
"""Files of a patient whose raw scans were given: labels on their own grids. See `raw.native`."""

WRITTEN = (*(f"{kind}.nii.gz" for kind in PREDICTED), *NATIVE, "preview.png", "prediction.json")
"""Files of a patient; the last one says that the others are whole."""

More = Callable[[Prediction, Path], dict[str, Any]]
"""Writes more into a folder, and gives what to change in the content of `prediction.json`; its warnings are added."""

REMOVED = ("removed_ml", "removed_ET_ml")
COLUMNS = (
    "patient",
    "status",
    *(f"{region.name}_ml" for region in REGIONS),
    *REMOVED,
    "expected_dice",
    "doubtful",
    "reason",
)
"""Of `patients.csv`."""


def predict_patient(
    predictor: Predictor,
    case: Case,
    out_dir: Path,
    *,
    resample: bool = False,
    overwrite: bool = False,
    more: More | None = None,
) -> dict[str, Any]:
    """Segment one patient and write everything in the geometry of the first scan; gives the content of `prediction.json`.

    Writes `segmentation.nii.gz` (integer labels), `regions.nii.gz` (masks TC, WT, ET as a fourth axis),
    `probabilities.nii.gz` (the same axis; 8 bits, so in steps of 1/255), `uncertainty.nii.gz` (their spread, only with
    flips or several networks), `preview.png` and, last, `prediction.json`: volumes in mL, warnings, settings. All of
    them appear at once, when all are made, so whoever interrupts a prediction finds nothing of it.

    A label of the case is not looked at. To `resample` is to bring scans on different grids to that of the first, to
    `overwrite` is to replace an earlier prediction, and any other file of these names. `more` is called before the files
    appear, and what it writes appears with them.

    Raises:
        CaseError: see `read_case`; or `out_dir` holds a file of these names already.
    """
    if not overwrite:
        refuse_earlier(out_dir)
    scan = read_case(replace(case, label=None), resample=resample, incomplete=True)
    prediction = predict_scan(predictor, scan)
    content = describe_prediction(predictor, scan, prediction, patient=case.case_id)
    out_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=out_dir) as folder:
        made = Path(folder)
        write_volumes(prediction, made, like=scan.reference)
        if more:
            added = more(prediction, made)
            warnings = [*added.pop("warnings", []), *content["warnings"]]
            content = content | added | {"warnings": list(dict.fromkeys(warnings))}  # once each
        image = reorient_volume(scan.image, scan.image.affine)
        regions = reorient_volume(prediction.regions, scan.image.affine)
        preview = plot_prediction(image, regions, title=case.case_id)
        (made / "preview.png").write_bytes(render_png(preview))
        write_text(made / "prediction.json", json.dumps(content, indent=1))
        publish(made, out_dir, names=WRITTEN)
    return content


def describe_prediction(predictor: Predictor, scan: Scan, prediction: Prediction, *, patient: str) -> dict[str, Any]:
    """Give the content of `prediction.json`."""
    return {
        "patient": patient,
        "missing": scan.missing,
        "volumes_ml": round_numbers(prediction.volumes_ml),
        "expected_dice": round_numbers(prediction.expected_dice),
        "doubtful": is_doubtful(prediction.expected_dice["mean"]),
        "volumes_grid": "segmentation.nii.gz",
        "removed": {kind: round(amount, 3) for kind, amount in prediction.removed.items()},
        "warnings": list(scan.warnings),
        "labels": {str(value): tissue for value, tissue in predictor.schema.tissues.items()},
        "label_schema": predictor.schema.name,
        "networks": len(predictor.models),
        "flips": predictor.flips,
        "keep_small": predictor.keep_small,
        "bias_correction": predictor.bias_correction,
        "spacing_mm": predictor.spacing_mm,
        "note": DISCLAIMER,
    }


def write_volumes(prediction: Prediction, folder: Path, *, like: Path) -> None:
    """Write the volumes of a prediction as `files.PREDICTED` names them, in the geometry of the scan `like`."""
    save_volume(prediction.labels, folder / "segmentation.nii.gz", like=like)
    save_volume(prediction.regions.movedim(0, -1), folder / "regions.nii.gz", like=like)
    shares = {"probabilities": prediction.probabilities, "uncertainty": prediction.uncertainty}
    for kind, share in shares.items():
        if share is not None:
            scaled = (share * 255).round().byte().movedim(0, -1)
            save_volume(scaled, folder / f"{kind}.nii.gz", like=like, slope=1 / 255)


def refuse_earlier(out_dir: Path, *, written: Sequence[str] = WRITTEN, kind: str = "prediction") -> None:
    """Refuse a folder with an earlier result in it, or with files of such names.

    `written` are the files of such a result, of which the last says that it is whole; `kind` is what it is called.

    Raises:
        CaseError: there are some.
    """
    there = [file for file in written if (out_dir / file).exists()]
    if there:
        what = f"an earlier {kind}" if written[-1] in there else f"files of no {kind} ({', '.join(there)})"
        raise CaseError(
            f"{display_path(out_dir)}: found {what}, expected none. Choose another folder, or `--overwrite` to replace it."
        )


def round_numbers(by_region: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers for JSON, which has no NaN."""
    return {region: None if math.isnan(number) else round(number, 3) for region, number in by_region.items()}


def predict_patients(
    predictor: Predictor,
    folder: Path,
    out_dir: Path,
    *,
    resample: bool = False,
    overwrite: bool = False,
    doubtful_first: bool = False,
) -> pd.DataFrame:
    """Segment every patient of a folder (see `find_cases`) as `predict_patient` does; one that cannot be is listed with the reason.

    `out_dir` gets a folder a patient, and `patients.csv`; `doubtful_first` sorts it by `expected_dice`, the lowest first.

    Returns:
        A row a patient: `patient`, `status` (ok, warning, failed, or earlier for one that was predicted before),
        `reason`, `<region>_ml`, `removed_ml` and `removed_ET_ml`, `expected_dice`, `doubtful`.

    Raises:
        CaseError: see `cases.layouts.find_cases`; or `patients.csv` is there and not ours.
    """
    patients = {
        case.case_id: partial(predict_patient, predictor, case, resample=resample, overwrite=overwrite)
        for case in find_cases(folder, labelled=False)
    }
    return predict_each(patients, out_dir, overwrite=overwrite, doubtful_first=doubtful_first)


def predict_each(
    patients: Mapping[str, Callable[[Path], dict[str, Any]]],
    out_dir: Path,
    *,
    overwrite: bool = False,
    doubtful_first: bool = False,
) -> pd.DataFrame:
    """Predict patient after patient, each with a function of his folder: the loop, and the table, of `predict_patients`."""
    listing = out_dir / "patients.csv"
    header = ",".join(COLUMNS)
    if listing.exists() and not overwrite and not listing.read_bytes().startswith(b"patient,status,"):
        raise CaseError(
            f"{display_path(listing)}: found another table, expected none, or one with the columns {header}. Choose "
            "another folder, or `--overwrite` to replace it."
        )
    rows: list[dict[str, Any]] = []
    try:
        for name, predict in tqdm(patients.items(), desc="Patients", unit="patient"):
            rows.append(_predict_row(predict, out_dir / name, overwrite=overwrite))
    finally:  # a folder may take hours: what was done before Ctrl-C is listed too
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        if doubtful_first:
            table = table.sort_values("expected_dice", kind="stable", ignore_index=True)  # without a number: last
        if rows:
            with replacing(listing) as temporary:
                table.to_csv(temporary, index=False)
    return table


def _predict_row(predict: Callable[[Path], dict[str, Any]], out_dir: Path, *, overwrite: bool) -> dict[str, Any]:
    """Segment a patient who is not done yet; a row of `predict_patients`, also where that fails."""
    name = out_dir.name
    try:
        if (out_dir / WRITTEN[-1]).exists() and not overwrite:
            return _read_row(out_dir / WRITTEN[-1], name=name)
        content = predict(out_dir)
        return _build_row(content, name=name, status="warning" if content["warnings"] else "ok")
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        return {"patient": name, "status": "failed", "reason": explain_failure(error)}


def _read_row(path: Path, *, name: str) -> dict[str, Any]:
    """The row of an earlier prediction, from its `prediction.json`."""
    try:
        return _build_row(json.loads(path.read_text(encoding="utf-8")), name=name, status="earlier")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(
            f"{display_path(path)}: cannot be read ({error!r}), expected an earlier prediction. Choose another folder, or "
            "`--overwrite` to replace it."
        ) from None


def _build_row(content: dict[str, Any], *, name: str, status: str) -> dict[str, Any]:
    """A row of `patients.csv`, from the content of a `prediction.json`; earlier versions did not say what was removed."""
    removed = content.get("removed", {})
    volumes = {}
    for region, volume_ml in content["volumes_ml"].items():
        volumes[f"{region}_ml"] = math.nan if volume_ml is None else volume_ml
    return {
        "patient": name,
        "status": status,
        **volumes,
        **{column: removed.get(column.removeprefix("removed_"), math.nan) for column in REMOVED},
        "reason": " ".join(content["warnings"]),
        "expected_dice": content["expected_dice"]["mean"],
        "doubtful": is_doubtful(content["expected_dice"]["mean"]),
    }
