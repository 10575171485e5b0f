"""The label of a case: whole numbers of its label convention, on the grid of its scan."""

import nibabel as nib
import numpy as np
import torch

from brats_utils.cases.case import Case
from brats_utils.cases.geometry import reorient_to_grid
from brats_utils.cases.nifti import gives_position, read_volume
from brats_utils.labels import LabelError, LabelSchema, check_label_values
from brats_utils.paths import display_path

MAX_ROUNDING = 1e-3
"""A label this near to a whole number is that number: slopes and resampling leave such traces."""


def read_label(case: Case, scan: nib.Nifti1Image) -> tuple[torch.Tensor, list[str]]:
    """Read a label onto the grid of its scan: (X, Y, Z) uint8, and what to warn of.

    Raises:
        CaseError: the file cannot be read.
        LabelError: see `reader.read_case`.
    """
    assert case.label is not None
    assert case.label_schema is not None
    source, values = read_volume(case.label)
    labels = _round_labels(values, case.label_schema, name=display_path(case.label))
    on_scan, fits, warnings = _reorient_to_scan(labels, source, scan)
    expected = tuple(scan.shape[:3])
    if on_scan.shape != expected:
        raise LabelError(
            f"{display_path(case.label)}: found a label of shape {tuple(labels.shape)}, expected {expected} as in "
            f"{display_path(case.files[0])}. Check that both files belong to the same case."
        )
    if not fits:
        raise LabelError(
            f"{display_path(case.label)}: found a label at another position or with another voxel size than "
            f"{display_path(case.files[0])}, expected the same grid. Resample the label to the scan, or correct the header "
            "that is wrong."
        )
    return on_scan, warnings


def _round_labels(values: np.ndarray, schema: LabelSchema, *, name: str) -> torch.Tensor:
    """Turn the voxels of a label file into uint8, and refuse those that are not in the schema; `name` is that of the file."""
    with np.errstate(invalid="ignore"):  # NaN and infinity are near to nothing, and refused
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        small = whole.astype(np.uint8)
        near = whole is values or np.abs(values - whole) <= MAX_ROUNDING
    if not np.all(near):
        listed = ", ".join(f"{value:.7g}" for value in np.unique(values[~near])[:5])
        raise LabelError(
            f"{name}: found label values [{listed}] that are no whole numbers, expected {sorted(schema.tissues)} "
            f"give or take {MAX_ROUNDING:g}. Was the label resampled without `nearest`? Export it again."
        )
    if np.array_equal(small, whole):
        counts = np.bincount(small.ravel("K"))
        found = np.flatnonzero(counts)
    else:  # too large for uint8
        found = np.unique(whole)
    check_label_values(found.tolist(), schema, source=name)
    return torch.from_numpy(small)


def _reorient_to_scan(
    labels: torch.Tensor, source: nib.Nifti1Image, scan: nib.Nifti1Image
) -> tuple[torch.Tensor, bool, list[str]]:
    """Bring (X, Y, Z) labels into the order of the scan's voxels.

    Returns:
        The labels, whether they lie on the scan's grid, and what to warn of.
    """
    has_position = labels.ndim == 3 and gives_position(source) and gives_position(scan)
    if has_position:
        reoriented, fits = reorient_to_grid(labels[None], source.affine, onto=scan.affine, shape=scan.shape[:3])
        # an identity matrix that does not fit: tools that do not know the position write it
        is_guessed = any(np.array_equal(image.affine, np.eye(4)) for image in (source, scan))
        if fits or not is_guessed:
            return reoriented[0], fits, _compare_axes(source, scan)
    if np.array_equal(source.affine, scan.affine):
        return labels, True, []
    warning = (
        "The header of the label, or of the scan, gives no position: the label is taken voxel by voxel. Compare both in a "
        "viewer."
    )
    return labels, True, [warning]


def _compare_axes(source: nib.Nifti1Image, scan: nib.Nifti1Image) -> list[str]:
    """Warn of a label whose axes run in other directions than those of its scan."""
    of_label, of_scan = ("".join(nib.aff2axcodes(image.affine)) for image in (source, scan))
    if of_label == of_scan:
        return []
    return [
        f"The label's axes run {of_label}, those of the scan {of_scan}: it was reoriented to the scan's axes. A wrong header "
        "would cause the same; compare both in a viewer."
    ]
