"""Raw scans as they lie on a disk: NIfTI files, and folders with one DICOM series or many."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.cases.folders import stem_of, volumes_of
from brats_utils.cases.nifti import gives_position, read_volume
from brats_utils.paths import display_path
from brats_utils.raw.dicom import NOBODY, PatientKey, read_files, sort_files
from brats_utils.raw.grid import image_from_array

MIN_SLICES = 8
"""A head in fewer slices is a localiser, or was cut off. Clinical protocols have 18 or more."""

MIN_EXTENT_MM = 60
"""Less of the head than this along any axis holds no whole tumour, and cannot be registered."""


@dataclass(frozen=True)
class Series:
    """One scan, not read yet."""

    path: Path  # the NIfTI file, or the folder that holds the DICOM files
    files: tuple[Path, ...] = ()  # of DICOM, in the order of the slices; empty for NIfTI
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # DICOM's of `dicom.WORDS`, no names
    patient: PatientKey = NOBODY  # to compare scans; never written

    @property
    def name(self) -> str:
        """What to call it: the file's name, or DICOM's description. Neither the patient's name nor the number."""
        return self.words.get("SeriesDescription") or ("DICOM series" if self.files else self.path.name)

    @property
    def is_whole(self) -> bool:
        """Whether it has slices enough for a head, as far as one sees without reading it."""
        frames = int(self.words.get("NumberOfFrames", 1))
        return not self.files or max(len(self.files), frames) >= MIN_SLICES


@dataclass(frozen=True)
class RawScan:
    """One scan on the scanner's grid."""

    image: sitk.Image  # 3D float32, in mm, LPS
    series: Series


def list_series(path: Path) -> list[Series]:
    """List what a NIfTI file or a folder holds, its sub-folders included: every NIfTI file and every DICOM series.

    Raises:
        CaseError: it is missing, or there is nothing of that kind.
    """
    if not path.exists():
        raise CaseError(f"{display_path(path)}: not found. Expected a NIfTI file or a folder; check the name.")
    if path.is_file() and path.name.lower().endswith((".nii", ".nii.gz")):
        return [Series(path)]
    folders = [one for one in (path, *sorted(path.rglob("*"))) if one.is_dir() and not _is_ours(one)]
    found = [Series(file) for folder in folders for file in volumes_of(folder)]
    files = [path] if path.is_file() else [file for folder in folders for file in sorted(folder.iterdir())]
    found += [Series(scan.files[0].parent, scan.files, scan.words, scan.patient) for scan in sort_files(files)]
    if not found:
        raise CaseError(
            f"{display_path(path)}: found no scan, expected NIfTI files (.nii, .nii.gz) or DICOM files of MR images. Check the "
            "folder, and unpack it if it came as a zip."
        )
    return found


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what we have made of scans."""
    native = folder.name == "native" and (folder.parent / "prediction.json").exists()
    return native or (folder / "preparation.json").exists()


def read_series(series: Series) -> RawScan:
    """Read a scan, and check that it may be one of a head.

    Raises:
        CaseError: damaged files, more or fewer than three axes, a slice that is missing or there twice, too few slices, no
            numbers, or nothing in it.
    """
    image = read_files(series.files) if series.files else _read_nifti(series.path)
    name = display_path(series.path)
    extents = [size * step for size, step in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    if min(image.GetSize()) < MIN_SLICES or min(extents) < MIN_EXTENT_MM:
        shape, cover = (" x ".join(f"{n:.0f}" for n in numbers) for numbers in (image.GetSize(), extents))
        raise CaseError(
            f"{name}: {series.name}: found {shape} voxels that cover {cover} mm, expected a head in at least {MIN_SLICES} "
            f"slices and {MIN_EXTENT_MM} mm. Is it a localiser, or one slice of a series? Name the whole series."
        )
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite([values.min(), values.max()]).all() or values.min() == values.max():
        raise CaseError(
            f"{name}: {series.name}: found voxels that are no finite numbers, or all the same, expected a picture. Export it again."
        )
    return RawScan(image, series)


def _read_nifti(path: Path) -> sitk.Image:
    source, values = read_volume(path)
    name = display_path(path)
    if values.ndim != 3:
        hint = "Take one volume out. If these are four prepared scans, `predict --image` takes the file as it is."
        if values.ndim < 3:
            hint = "Name the file with the whole scan."
        raise CaseError(f"{name}: found {values.ndim} axes in shape {values.shape}, expected one scan with 3. {hint}")
    if not gives_position(source):
        raise CaseError(
            f"{name}: found a header that does not say where the voxels lie, so that left and right may be swapped, expected "
            f"a qform or sform. Convert {stem_of(path)} from DICOM again, for instance with dcm2niix."
        )
    return image_from_array(values.astype(np.float32), source.affine)
