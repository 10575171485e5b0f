"""Labelled cases, whatever the layout of their folder, and their labels as regions on the grid of the scan."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from brats_utils.cases.layouts import LabelledScan, find_labelled_patients
from brats_utils.cases.reader import ScanError, lies_on_grid, list_files, open_volume, read_volume
from brats_utils.cases.split import Case, load_cases
from brats_utils.labels import LabelError, LabelSchema, check_label_values, labels_to_regions
from brats_utils.paths import display_path
from brats_utils.report.slices import turn_volume

AnyCase = Case | LabelledScan


def find_cases(folder: Path, *, schema: LabelSchema) -> Sequence[AnyCase]:
    """List the labelled cases of a folder in the layout of MSD, or with a folder a patient.

    Raises:
        DataError, LabelError: see `data.load_cases`.
        ScanError: see `folders.find_labelled_patients`.
    """
    is_msd = (folder / "dataset.json").is_file()
    return load_cases(folder, schema=schema) if is_msd else find_labelled_patients(folder)


def reference_path(case: AnyCase) -> Path:
    """Take the scan whose grid counts: the only file, or the first of four."""
    return list_files(case.image)[0]


def load_truth(case: AnyCase, *, schema: LabelSchema) -> torch.Tensor:
    """Read the regions of a case on the voxel grid of its scan.

    A label on the same grid whose axes run in another order or direction is turned. One whose header gives no position
    is taken as it lies in the file, and so is any label of a scan without a position.

    Returns:
        (3, X, Y, Z) bool.

    Raises:
        OSError: a label that cannot be read.
        ScanError: a scan whose header cannot be read.
        LabelError: a value that the schema does not list, or a label on another grid than the scan.
    """
    scan = open_volume(reference_path(case))
    try:
        source, values = read_volume(case.label)
    except ScanError as error:
        raise OSError(str(error)) from None
    check_label_values(np.unique(values).tolist(), schema, source=display_path(case.label))
    labels = _turn_onto_scan(torch.from_numpy(values.astype(np.uint8)), source, scan, case)
    return labels_to_regions(labels, schema)


def _turn_onto_scan(
    labels: torch.Tensor, source: nib.Nifti1Image, scan: nib.Nifti1Image, case: AnyCase
) -> torch.Tensor:
    """Bring (X, Y, Z) labels into the order of the scan's voxels, or refuse them."""
    shape, name, scan_name = scan.shape[:3], display_path(case.label), display_path(reference_path(case))
    turned, to_scan = labels, np.eye(4)
    if labels.ndim == 3 and _gives_position(source) and _gives_position(scan):
        to_scan = np.linalg.inv(scan.affine) @ source.affine
        turned = turn_volume(labels[None], to_scan)[0]
        to_scan = to_scan @ nib.orientations.inv_ornt_aff(nib.io_orientation(to_scan), labels.shape)
    if turned.shape != shape:
        raise LabelError(
            f"{name}: found a label of shape {tuple(labels.shape)}, expected {tuple(shape)} as in {scan_name}. "
            "Check that both files belong to the same case."
        )
    if not lies_on_grid(to_scan, shape):
        raise LabelError(
            f"{name}: found a label at another position or with another voxel size than {scan_name}, expected the same "
            "grid. Resample the label to the scan, or correct the header that is wrong."
        )
    return turned


def _gives_position(image: nib.Nifti1Image) -> bool:
    """Whether a header says where its voxels lie; tools that do not know write no code, or an identity matrix."""
    coded = image.header["qform_code"] or image.header["sform_code"]
    return bool(coded) and not np.array_equal(image.affine, np.eye(4))
