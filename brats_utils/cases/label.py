"""The label of a case: whole numbers of its label convention, on the grid of its scan."""

import nibabel as nib
import numpy as np
import torch

from brats_utils.cases.case import Case
from brats_utils.cases.geometry import reorient_to_grid
from brats_utils.cases.nifti import gives_position, read_volume
from brats_utils.labels import LabelError, check_label_values
from brats_utils.paths import display_path

MAX_ROUNDING = 1e-3
"""A label this near to a whole number is that number: slopes and resampling leave such traces."""


def read_label(case: Case, scan: nib.Nifti1Image) -> tuple[torch.Tensor, list[str]]:
    """Read a label onto the grid of its scan: (X, Y, Z) uint8, and what to warn of."""
    assert case.label is not None
    assert case.label_schema is not None
    source, values = read_volume(case.label)
    name = display_path(case.label)
    with np.errstate(invalid="ignore"):  # NaN and infinity are near to nothing, and refused
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        small = whole.astype(np.uint8)
        near = whole is values or np.abs(values - whole) <= MAX_ROUNDING
    if not np.all(near):
        listed = ", ".join(f"{value:.7g}" for value in np.unique(values[~near])[:5])
        raise LabelError(
            f"{name}: found label values [{listed}] that are no whole numbers, expected {sorted(case.label_schema.tissues)} "
            f"give or take {MAX_ROUNDING:g}. Was the label resampled without `nearest`? Export it again."
        )
    fits = np.array_equal(small, whole)
    found = np.flatnonzero(np.bincount(small.ravel("K"))) if fits else np.unique(whole)
    check_label_values(found.tolist(), case.label_schema, source=name)
    return _reorient_to_scan(torch.from_numpy(small), source, scan, names=(name, display_path(case.files[0])))


def _reorient_to_scan(
    labels: torch.Tensor, source: nib.Nifti1Image, scan: nib.Nifti1Image, *, names: tuple[str, str]
) -> tuple[torch.Tensor, list[str]]:
    """Bring (X, Y, Z) labels into the order of the scan's voxels, or refuse them."""
    (name, scan_name), shape, notes = names, scan.shape[:3], []
    turned, fits = labels, True
    known = labels.ndim == 3 and gives_position(source) and gives_position(scan)
    if known:
        turned, fits = reorient_to_grid(labels[None], source.affine, onto=scan.affine, shape=shape)
        turned = turned[0]
    if not fits and any(np.array_equal(image.affine, np.eye(4)) for image in (source, scan)):
        # an identity matrix that does not fit: tools that do not know write it
        known, turned, fits = False, labels, True
    axes = ["".join(nib.aff2axcodes(image.affine)) for image in (source, scan)]
    if known and axes[0] != axes[1]:
        notes.append(
            f"The label's axes run {axes[0]}, those of the scan {axes[1]}: it was reoriented to the scan's axes. "
            "A wrong header would cause the same; compare both in a viewer."
        )
    elif not known and not np.array_equal(source.affine, scan.affine):
        notes.append(
            "The header of the label, or of the scan, gives no position: the label is taken voxel by voxel. "
            "Compare both in a viewer."
        )
    if turned.shape != shape:
        raise LabelError(
            f"{name}: found a label of shape {tuple(labels.shape)}, expected {tuple(shape)} as in {scan_name}. "
            "Check that both files belong to the same case."
        )
    if not fits:
        raise LabelError(
            f"{name}: found a label at another position or with another voxel size than {scan_name}, expected the same "
            "grid. Resample the label to the scan, or correct the header that is wrong."
        )
    return turned, notes
