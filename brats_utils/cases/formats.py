"""Files of voxels: their first bytes say what they are, whatever their names say. NIfTI, MetaImage and NRRD are read."""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.paths import display_path

ENDINGS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Of the files that are looked at as scans and labels; capitals do not matter."""

HEAD = 4096
"""Bytes that are looked at; the text headers of MetaImage and NRRD are shorter."""

OTHERS = (
    (rb"version https://git-lfs", "a pointer of Git LFS, and not the scan it points to", "Run `git lfs pull` where it came from."),
    (rb"(?i)\s*(<!doctype html|<html|<\?xml)", "a web page, as a failed or unfinished login leaves it", "Log in and download it again."),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive", "Unpack it, and give what is in it."),
    (rb"(?s).{128}DICM", "a DICOM file", "Convert the series to NIfTI first, for instance with dcm2niix."),
    (rb"(?s).{257}ustar|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh", "an archive", "Unpack it, and give what is in it."),
    (rb"\x89PNG|\xff\xd8\xff", "a picture", "Give the scan that it was drawn from."),
    (rb"\x89HDF", "an HDF5 file", "Give the scans that it was made from."),
)  # fmt: skip
"""Pattern of the first bytes, what was found, and what to do.

Source: git-lfs/docs/spec.md; APPNOTE.TXT of zip; DICOM PS3.10, 7.1; POSIX ustar; the signatures of the others.
"""

META_IMAGE = rb"\s*(ObjectType|NDims|Comment)\s*="
NRRD = rb"NRRD\d{4}"
POSITION = rb"(?mi)^(space|space directions|TransformMatrix|Orientation|Rotation|Offset|Origin|Position)\s*[:=]"
"""Fields of a header that say where voxels lie. Source: teem.sourceforge.net/nrrd/format.html; MetaIO/Documentation."""

TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""From mm left, posterior, superior, as ITK and DICOM count them, to right, anterior, superior, as NIfTI does, and back."""


def open_image(path: Path) -> nib.Nifti1Image:
    """Open a file as a NIfTI image; of MetaImage and NRRD, voxels and position are taken over.

    Raises:
        CaseError: there is no such file, or it is something else than a scan; it says what, and what to do.
    """
    name = display_path(path)
    if not path.is_file():
        raise CaseError(f"{name}: not found. Expected a NIfTI file; check the name and the folder.")
    try:
        return _open(path, name)
    except CaseError:
        raise
    except Exception as error:  # nibabel, gzip, ITK and NumPy raise what they like, a damaged size MemoryError
        raise CaseError(explain_damage(name, error)) from None


def explain_damage(name: str, error: Exception) -> str:
    """Say that a file cannot be read."""
    text = str(error).strip() or type(error).__name__
    itk = re.search(r"ITK ERROR: \w+\(0x\w+\): (.*)", text)  # says where before, and more after
    reason = f"ITK: {itk[1].split(': /')[0].rstrip(' :.')}" if itk else text
    return f"{name}: cannot be read ({reason}). Expected a NIfTI file; copy or download it again."


def _open(path: Path, name: str) -> nib.Nifti1Image:
    head, packed = _read_head(path)
    if not head:
        raise CaseError(f"{name}: found an empty file, expected a NIfTI file. Copy or download it again.")
    for pattern, found, remedy in OTHERS:
        if re.match(pattern, head):
            raise CaseError(f"{name}: found {found}, expected a NIfTI file. {remedy}")
    if re.match(META_IMAGE, head):
        return _read_itk(path, "MetaImageIO", known=bool(re.search(POSITION, head)))
    if re.match(NRRD, head):
        return _read_itk(path, "NrrdImageIO", known=bool(re.search(POSITION, head)))
    single = {b"n+1\0": nib.Nifti1Image, b"n+2\0": nib.Nifti2Image}
    found_kind = single.get(head[344:348]) or single.get(head[4:8])
    named = path.name.lower().endswith(".nii.gz" if packed else ".nii")
    if found_kind and not named:  # nibabel goes by the name
        content = path.read_bytes()
        return found_kind.from_bytes(gzip.decompress(content) if packed else content)
    return nib.load(path)


def _read_head(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, unpacked, and whether they were packed by gzip."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head.startswith(b"\x1f\x8b"):
        return head, False
    with gzip.open(path) as unpacked:
        return unpacked.read(HEAD), True


def _read_itk(path: Path, reader: str, *, known: bool) -> nib.Nifti1Image:
    """Read with ITK; `known` is whether the header says where the voxels lie."""
    file = sitk.ImageFileReader()
    file.SetImageIO(reader)
    file.SetFileName(str(path))
    image = file.Execute()
    values = sitk.GetArrayFromImage(
        image
    )  # (Z, Y, X), with the channels of a vector last and those of a fourth axis first
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values, -1, 0)
    values = values.T
    if values.dtype in (np.int64, np.uint64):  # which NIfTI can hold, and few programs read
        values = values.astype(np.float64)
    affine = affine_of(image)
    found = nib.Nifti1Image(values, affine)
    found.header.set_xyzt_units("mm")
    for field in ("qform", "sform"):
        getattr(found, f"set_{field}")(affine, code=int(known))
    return found


def affine_of(image: sitk.Image) -> np.ndarray:
    """The (4, 4) affine of NIfTI, from voxels to mm in RAS; of a fourth axis nothing is in it."""
    axes = min(image.GetDimension(), 3)
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:axes, :axes]
    affine[:axes, :axes] = directions * np.array(image.GetSpacing()[:axes])
    affine[:axes, 3] = image.GetOrigin()[:axes]
    affine[:3] = TO_RAS @ affine[:3]
    return affine
