"""The raw scans of one patient, read together: each once, all of one person, and of a head."""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.labels import CHANNELS
from brats_utils.raw.channels import choose_series
from brats_utils.raw.series import RawScan, Series, read_series

OTHER_PARTS = (
    "ABDOMEN", "ANKLE", "BREAST", "CHEST", "ELBOW", "EXTREMITY", "FOOT", "HAND", "HEART", "HIP", "KNEE", "LEG", "LIVER",
    "PELVIS", "PROSTATE", "SHOULDER", "SPINE", "WRIST",
)  # fmt: skip
"""In DICOM's Body Part Examined, which is wrong so often that it is only warned of. Source: Gueld 2002 (Proc SPIE 4685:280)
found it wrong in 15% of radiographs; the terms are those of DICOM PS3.16, annex L."""


def read_scans(scans: Mapping[str, Path | Series]) -> dict[str, RawScan]:
    """Read the raw scans of one patient, in the order of `CHANNELS`.

    Args:
        scans: by the names of `CHANNELS`; NIfTI files, or folders with a DICOM series. One may be missing.

    Raises:
        CaseError: see `choose_series` and `read_series`; two scans are missing, one is given twice, or DICOM names two patients.
    """
    missing = [name for name in CHANNELS if name not in scans]
    if len(missing) > 1:
        raise CaseError(
            f"Found no {' and no '.join(missing)} among the scans, expected {', '.join(CHANNELS)}, of which one may be missing."
        )
    chosen = {name: scans[name] for name in CHANNELS if name in scans}
    series = {name: one if isinstance(one, Series) else choose_series(one, name) for name, one in chosen.items()}
    _refuse_two_patients(series)
    raw = {name: read_series(one) for name, one in series.items()}
    for (one, scan), (other, copy) in combinations(raw.items(), 2):
        values, others = (sitk.GetArrayViewFromImage(each.image) for each in (scan, copy))
        if np.array_equal(values, others):
            raise CaseError(
                f"Found the same voxels in {one} ({scan.series.name}) and {other} ({copy.series.name}), expected two scans. "
                "Check what you named."
            )
    return raw


def _refuse_two_patients(series: Mapping[str, Series]) -> None:
    """By DICOM's patient, which no message tells."""
    for (one, scan), (other, second) in combinations(series.items(), 2):
        if scan.patient.differs_from(second.patient):
            raise CaseError(
                f"Found DICOM headers of two patients in {one} ({scan.name}) and {other} ({second.name}), expected one. Check what "
                "you named; if it is one person with two numbers, convert the series with dcm2niix and name the files."
            )


def doubt_body_parts(raw: Mapping[str, RawScan]) -> Iterator[str]:
    """Warn of scans that DICOM calls those of something else than a head."""
    for name, scan in raw.items():
        part = scan.series.words.get("BodyPartExamined", "").upper()
        if not set(OTHER_PARTS).isdisjoint(re.split(r"\W+", part)):
            yield f"{name}: the DICOM header calls it a scan of {part}, expected a head. Look at preparation.png."
