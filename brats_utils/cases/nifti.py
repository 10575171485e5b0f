"""NIfTI files: opening and writing them, and what their headers say of where voxels lie."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from brats_utils.cases.case import CaseError
from brats_utils.cases.formats import explain_damage, open_image
from brats_utils.paths import display_path, replacing

for header in (nib.Nifti1Header, nib.Nifti2Header):
    header.quaternion_threshold = -1e-5  # programs that compute in single precision write some that are a hair too long


def read_volume(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Read a file of voxels: its header, as NIfTI has it, and its voxels as they are scaled, without axes of length 1 after the third.

    Raises:
        CaseError: a file that is missing, damaged or no scan, a header without a place for the voxels, or no numbers.
    """
    name = display_path(path)
    source = open_image(path)
    try:
        values = np.asanyarray(getattr(source, "dataobj", None))  # surfaces and tracts have none
    except Exception as error:  # a damaged size is a MemoryError
        raise CaseError(explain_damage(name, error)) from None
    if not isinstance(source, nib.Nifti1Pair):
        raise CaseError(
            f"{name}: found a {type(source).__name__}, expected a NIfTI file. Convert it, for instance with nib-convert."
        )
    if not np.isfinite(source.affine).all() or np.linalg.matrix_rank(source.affine[:3, :3]) < 3:
        raise CaseError(
            f"{name}: found a header that gives the voxels no size or direction, expected an affine of finite numbers "
            "with three axes. Export it again, or correct the header."
        )
    if values.dtype.kind not in "iuf":
        raise CaseError(f"{name}: found voxels of type {values.dtype}, expected numbers. Export it as greyscale.")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return source, values


def gives_position(image: nib.Nifti1Image) -> bool:
    """Whether a header has a code that says where its voxels lie."""
    return bool(image.header["qform_code"] or image.header["sform_code"])


def copy_geometry(source: nib.Nifti1Header, target: nib.Nifti1Header) -> None:
    """Copy what says where voxels lie, bit by bit, from the header that was read into one to be written."""
    fields = ("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y")
    for name in (*fields, "qoffset_z", "srow_x", "srow_y", "srow_z"):
        target[name] = source[name]
    target["pixdim"][:4] = source["pixdim"][:4]


def save_volume(volume: torch.Tensor, path: Path, *, like: Path, slope: float = 1.0) -> Path:
    """Write 8-bit integers as NIfTI with the affine, codes and units of the scan.

    Args:
        volume: (X, Y, Z) or (X, Y, Z, C) uint8.
        path: to write, `.nii.gz`; whole or not at all.
        like: the scan (3D or 4D) whose geometry the volume shares.
        slope: what programs multiply the integers by; 1 / 255 for probabilities.
    """
    image = nib.Nifti1Image(volume.numpy().astype(np.uint8), None)
    copy_geometry(open_image(like).header, image.header)
    image.header.set_slope_inter(slope, 0)
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path
