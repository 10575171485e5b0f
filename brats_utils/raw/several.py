"""Raw scans of many patients, a folder each, prepared one after the other."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from brats_utils.cases.case import CaseError
from brats_utils.paths import display_path, replacing
from brats_utils.raw.channels import choose_channels
from brats_utils.raw.preparation import LAST, prepare_patient
from brats_utils.transforms import explain_failure


def prepare_patients(folder: Path, out_dir: Path, *, overwrite: bool = False) -> pd.DataFrame:
    """Prepare every patient of a folder, each in a sub-folder, as `prepare_patient` does; one that cannot be is listed with the reason.

    `out_dir` gets a folder a patient, and `preparations.csv`.

    Returns:
        A row a patient: `patient`, `status` (ok, warning, failed, or earlier for one that was prepared before),
        `brain_ml`, `seconds`, `reason`.

    Raises:
        CaseError: there is no sub-folder.
    """
    homes = list_homes(folder)
    rows: list[dict[str, Any]] = []
    try:
        for home in tqdm(homes, desc="Patients", unit="patient"):
            rows.append({"patient": home.name, **_prepare_row(home, out_dir / home.name, overwrite=overwrite)})
    finally:  # a folder may take hours: what was done before Ctrl-C is listed too
        table = pd.DataFrame(rows, columns=["patient", "status", "brain_ml", "seconds", "reason"])
        if rows:
            with replacing(out_dir / "preparations.csv") as temporary:
                table.to_csv(temporary, index=False)
    return table


def list_homes(folder: Path) -> list[Path]:
    """The folders of the patients in a folder.

    Raises:
        CaseError: there is none.
    """
    homes = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not homes:
        raise CaseError(
            f"{display_path(folder)}: found no folder in it, expected one for each patient. A single one is named with --patient."
        )
    return homes


def _prepare_row(home: Path, out_dir: Path, *, overwrite: bool) -> dict[str, Any]:
    """Prepare a patient who is not done yet; a row of `prepare_patients`, also where that fails."""
    try:
        if (out_dir / LAST).exists() and not overwrite:
            content, status = json.loads((out_dir / LAST).read_text(encoding="utf-8")), "earlier"
        else:
            content = prepare_patient(choose_channels(home), out_dir, overwrite=overwrite).content
            status = "warning" if content["warnings"] else "ok"
        reason = " ".join(content["warnings"])
        return {"status": status, "brain_ml": content["brain_ml"], "seconds": content["seconds"], "reason": reason}
    except (ValueError, KeyError, OSError, RuntimeError, MemoryError) as error:
        return {"status": "failed", "reason": explain_failure(error)}
