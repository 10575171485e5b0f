"""The way back: what was found on the prepared grid, on the grid of each raw scan."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.nifti import save_volume
from brats_utils.inference import Prediction, Predictor
from brats_utils.labels import FILE_NAMES, REGIONS, LabelSchema, regions_to_labels
from brats_utils.patients.prediction import predict_each, predict_patient, refuse_earlier, round_numbers
from brats_utils.post_processing import threshold_probabilities
from brats_utils.raw.channels import choose_channels
from brats_utils.raw.dicom_seg import write_dicom_seg
from brats_utils.raw.grid import array_of
from brats_utils.raw.preparation import LAST, Preparation, prepare_patient
from brats_utils.raw.series import RawScan, Series
from brats_utils.raw.several import list_homes


def predict_raw_patient(
    predictor: Predictor,
    scans: Mapping[str, Path | Series],
    out_dir: Path,
    *,
    brain_mask: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepare raw scans, segment them, and write the labels on the grid of each scan too; gives the content of `prediction.json`.

    `out_dir` gets `prepared/` (see `prepare_patient`), what `predict_patient` writes, on the prepared grid, and `native/`:
    `<channel>.nii.gz`, labels voxel by voxel on a raw scan, and for DICOM `segmentation.dcm`, on that of the reference.
    Volumes are those on the raw grid of the reference, since those voxels were measured.

    For the arguments, and what is raised, see `prepare_patient` and `predict_patient`.
    """
    if not overwrite:
        refuse_earlier(out_dir)
    prepared = out_dir / "prepared"
    again = overwrite or (prepared / LAST).exists()  # left by a prediction that broke off
    preparation = prepare_patient(scans, prepared, brain_mask=brain_mask, overwrite=again)
    more = partial(write_native, preparation, schema=predictor.schema, keep_small=predictor.keep_small)
    case = Case(out_dir.resolve().name, preparation.images)
    return predict_patient(predictor, case, out_dir, overwrite=overwrite, more=more)


def predict_raw_patients(
    predictor: Predictor, folder: Path, out_dir: Path, *, overwrite: bool = False, doubtful_first: bool = False
) -> pd.DataFrame:
    """Do so for every patient of a folder, each in a sub-folder; the table is that of `predict_patients`.

    Raises:
        CaseError: there is no sub-folder; or `patients.csv` is there and not ours.
    """

    def predict(home: Path, out: Path) -> dict[str, Any]:
        return predict_raw_patient(predictor, choose_channels(home), out, overwrite=overwrite)

    patients = {home.name: partial(predict, home) for home in list_homes(folder)}
    return predict_each(patients, out_dir, overwrite=overwrite, doubtful_first=doubtful_first)


def write_native(
    preparation: Preparation, prediction: Prediction, folder: Path, *, schema: LabelSchema, keep_small: bool = False
) -> dict[str, Any]:
    """Write the labels on every raw scan into `folder`/native; gives what this changes in `prediction.json`."""
    (folder / "native").mkdir()
    segmented = [not np.isnan(prediction.volumes_ml[region.name]) for region in REGIONS]
    volumes: dict[str, dict[str, float]] = {}
    warnings = list(preparation.content["warnings"])
    for channel, scan in preparation.scans.items():
        probabilities = carry_back(prediction.probabilities, preparation, channel)
        voxel_ml = float(np.prod(scan.image.GetSpacing())) / 1000
        _, regions = threshold_probabilities(probabilities, segmented, voxel_ml=voxel_ml, keep_small=keep_small)
        labels = regions_to_labels(regions, schema)
        write_labels(labels, folder / f"native/{FILE_NAMES[channel]}.nii.gz", scan=scan)
        if channel == preparation.reference and scan.series.files:
            warnings += _write_segmentation(regions, folder / "native/segmentation.dcm", files=scan.series.files)
        amounts = zip(REGIONS, regions.flatten(1).sum(1).tolist(), segmented, strict=True)
        volumes[channel] = {r.name: count * voxel_ml if looked_for else np.nan for r, count, looked_for in amounts}
    return {
        "volumes_ml": round_numbers(volumes[preparation.reference]),
        "volumes_grid": f"native/{FILE_NAMES[preparation.reference]}.nii.gz",
        "volumes_native_ml": {channel: round_numbers(by) for channel, by in volumes.items()},
        "volumes_prepared_ml": round_numbers(prediction.volumes_ml),
        "warnings": warnings,
    }


def _write_segmentation(regions: torch.Tensor, path: Path, *, files: Sequence[Path]) -> list[str]:
    """Write (3, X, Y, Z) regions as DICOM; what cannot be is said, since the other labels are there all the same."""
    try:
        write_dicom_seg(path, regions=regions.numpy().transpose(0, 3, 2, 1), series=files)
    except CaseError as error:
        return [f"native/{path.name} was not written: {error}"]
    return []


def carry_back(probabilities: torch.Tensor, preparation: Preparation, channel: str) -> torch.Tensor:
    """Interpolate probabilities on the grid of a raw scan, through the inverse of its registration; 0 outside.

    Args:
        probabilities: (3, X, Y, Z) float32 on the prepared grid.
        preparation: of the scans.
        channel: which of them.

    Returns:
        (3, X, Y, Z) float32 on the raw grid, axes as in its file. Cut them there: labels cannot be interpolated.
    """
    raw = preparation.scans[channel].image
    back = preparation.registrations[channel].transform.GetInverse()
    carried = []
    for volume in probabilities.numpy():
        image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
        image.CopyInformation(preparation.brain)
        carried.append(array_of(sitk.Resample(image, raw, back, sitk.sitkLinear, 0.0, sitk.sitkFloat32)))
    return torch.from_numpy(np.stack(carried))


def write_labels(labels: torch.Tensor, path: Path, *, scan: RawScan) -> None:
    """Write (X, Y, Z) labels in the geometry of a raw scan, for NIfTI bit by bit that of its header."""
    if not scan.series.files:
        save_volume(labels, path, like=scan.series.path)
        return
    image = sitk.GetImageFromArray(labels.byte().numpy().transpose(2, 1, 0).copy())
    image.CopyInformation(scan.image)
    sitk.WriteImage(image, str(path))
