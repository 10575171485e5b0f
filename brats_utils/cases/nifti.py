"""NIfTI files: opening them, and what their headers say of where voxels lie."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from brats_utils.cases.case import CaseError
from brats_utils.paths import display_path

for header in (nib.Nifti1Header, nib.Nifti2Header):
    header.quaternion_threshold = -1e-5  # programs that compute in single precision write some that are a hair too long


def open_volume(path: Path) -> nib.Nifti1Image:
    """Read the header of a NIfTI file.

    Raises:
        CaseError: the file is missing, damaged or no NIfTI, or its header gives the voxels no place.
    """
    if not path.is_file():
        raise CaseError(f"{display_path(path)}: not found. Expected a NIfTI file; check the name and the folder.")
    with _explain_reading(path):
        source = nib.load(path)
    if not isinstance(source, nib.Nifti1Pair):
        raise CaseError(
            f"{display_path(path)}: found a {type(source).__name__}, expected a NIfTI file. Convert it, for instance with "
            "nib-convert."
        )
    if not np.isfinite(source.affine).all() or np.linalg.matrix_rank(source.affine[:3, :3]) < 3:
        raise CaseError(
            f"{display_path(path)}: found a header that gives the voxels no size or direction, expected an affine of "
            "finite numbers with three axes. Export it again, or correct the header."
        )
    return source


def read_volume(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Read a NIfTI file: its header, and its voxels as they are scaled, without trailing axes of length 1 after the third."""
    source = open_volume(path)
    with _explain_reading(path):
        values = np.asanyarray(source.dataobj)
    if values.dtype.kind not in "iuf":
        raise CaseError(
            f"{display_path(path)}: found voxels of type {values.dtype}, expected numbers. Export it as greyscale."
        )
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return source, values


@contextmanager
def _explain_reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # nibabel, gzip and NumPy raise what they like, a damaged size MemoryError
        reason = str(error) or type(error).__name__
        raise CaseError(
            f"{display_path(path)}: cannot be read ({reason}). Expected a NIfTI file; copy or download it again."
        ) from None


def gives_position(image: nib.Nifti1Image) -> bool:
    """Whether a header has a code that says where its voxels lie."""
    return bool(image.header["qform_code"] or image.header["sform_code"])


def copy_geometry(source: nib.Nifti1Header, target: nib.Nifti1Header) -> None:
    """Copy what says where voxels lie, bit by bit, from the header that was read into one to be written."""
    fields = ("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
    for name in (*fields, "qoffset_z", "srow_x", "srow_y", "srow_z"):
        target[name] = source[name]
    target["pixdim"][:4] = source["pixdim"][:4]
