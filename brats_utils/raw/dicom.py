"""DICOM files: which belong together as one scan, in which order, and what they say of how it was taken."""

import locale
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_utils.cases.case import CaseError
from brats_utils.paths import display_path
from brats_utils.raw.frames import check_stack, read_frames

WORDS = {
    "SeriesDescription": "0008|103e",
    "ProtocolName": "0018|1030",
    "ContrastBolusAgent": "0018|0010",
    "ScanningSequence": "0018|0020",
    "EchoTime": "0018|0081",
    "RepetitionTime": "0018|0080",
    "InversionTime": "0018|0082",
    "ImageType": "0008|0008",
    "NumberOfFrames": "0028|0008",
    "BodyPartExamined": "0018|0015",
}
"""What says how a scan was taken, and nothing of whom. Source: DICOM PS3.6, the data dictionary."""

SERIES, MODALITY, POSITION, ORIENTATION = "0020|000e", "0008|0060", "0020|0032", "0020|0037"
ROWS, COLUMNS, SAMPLES = "0028|0010", "0028|0011", "0028|0002"
PATIENT_NAME, PATIENT_ID = "0010|0010", "0010|0020"

MR_STORAGE = b"1.2.840.10008.5.1.4.1.1.4"
"""In the first bytes of every MR image, plain or enhanced. Source: DICOM PS3.4, annex B.5."""


@dataclass(frozen=True)
class PatientKey:
    """Who lies in a scan, to be compared and never told: numbers of Python's `hash`, which differ in each process."""

    name: int | None  # None where the header has none, as after anonymisation
    number: int | None

    def differs_from(self, other: "PatientKey") -> bool:
        """Whether both are surely two people: by their number, or by their name where one has no number."""
        if self.number is not None and other.number is not None:
            return self.number != other.number
        return self.name is not None and other.name is not None and self.name != other.name


NOBODY = PatientKey(None, None)


@dataclass(frozen=True)
class DicomScan:
    """The files of one scan."""

    files: tuple[Path, ...]  # sorted along the normal of the slices
    words: dict[str, str]  # what they say in `WORDS`
    patient: PatientKey


def sort_files(paths: Iterable[Path]) -> list[DicomScan]:
    """Group the MR images among files into scans, by series, orientation, size and echo; a file of many frames is one.

    Other files, DICOM or not, are passed over: text, reports, segmentations, pictures in colour.

    Raises:
        CaseError: one of them is damaged.
    """
    groups: dict[tuple[str, ...], list[tuple[float, Path, dict[str, str]]]] = defaultdict(list)
    for path in paths:
        tags = _read_tags(path) if path.is_file() and not path.name.startswith(".") else {}
        if tags.get(MODALITY) != "MR" or tags.get(SAMPLES, "1") != "1" or ROWS not in tags:
            continue
        orientation = [round(float(part), 2) + 0.0 for part in tags.get(ORIENTATION, "1\\0\\0\\0\\1\\0").split("\\")]
        alone = str(path) if int(tags.get(WORDS["NumberOfFrames"]) or 1) > 1 else ""
        key = (tags[SERIES], str(orientation), tags[ROWS], tags[COLUMNS], tags.get(WORDS["EchoTime"], ""), alone)
        place = np.array(tags.get(POSITION, "0\\0\\0").split("\\"), dtype=float)
        normal = np.cross(orientation[:3], orientation[3:])
        groups[key].append((float(normal @ place), path, tags))
    scans = []
    for slices in groups.values():
        slices.sort(key=lambda one: (one[0], one[1]))
        tags = slices[0][2]
        words = {name: tags[tag].strip() for name, tag in WORDS.items() if tags.get(tag, "").strip()}
        scans.append(DicomScan(tuple(path for _, path, _ in slices), words, _tell_patient(tags)))
    return scans


def _tell_patient(tags: dict[str, str]) -> PatientKey:
    name = " ".join(tags.get(PATIENT_NAME, "").replace("^", " ").lower().split())
    number = tags.get(PATIENT_ID, "").strip().lower()
    return PatientKey(hash(name) if name else None, hash(number) if number else None)


def read_files(files: Sequence[Path]) -> sitk.Image:
    """Read one scan, (X, Y, Z) float32, from its files as `sort_files` gives them.

    Raises:
        CaseError: files that cannot be decoded, a slice that is missing or there twice, slices that are shifted sideways, or
            several volumes in one file.
    """
    if len(files) == 1:
        return read_frames(files[0], _read_pixels(files))
    folder = display_path(files[0].parent)
    tags = [_read_tags(path) for path in files]
    if any(POSITION not in one or ORIENTATION not in one for one in tags):
        raise CaseError(
            f"{folder}: found slices that do not say where they lie, expected Image Position and Orientation. Export it again."
        )
    places = np.array([one[POSITION].split("\\") for one in tags], dtype=float)
    orientation = np.array(tags[0][ORIENTATION].split("\\"), dtype=float)
    check_stack(places, orientation, folder)
    return _read_pixels(files)


def _read_pixels(files: Sequence[Path]) -> sitk.Image:
    folder = display_path(files[0].parent)
    try:
        with _quiet():
            image = sitk.ReadImage([str(path) for path in files] if len(files) > 1 else str(files[0]), sitk.sitkFloat32)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CaseError(
            f"{folder}: the DICOM files cannot be read ({reason}). Copy them again; if their compression is the reason, "
            "`gdcmconv --raw` or dcm2niix make files that can."
        ) from None
    if image.GetDimension() != 3:
        raise CaseError(f"{folder}: found {image.GetDimension()} axes, expected 3. Export one volume of the series.")
    return image


def _read_tags(path: Path) -> dict[str, str]:
    """What a DICOM file says in its header; empty for any other file."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start[128:132] != b"DICM":
        return {}
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    try:
        with _quiet():
            reader.ReadImageInformation()
    except RuntimeError:
        if MR_STORAGE in start:  # passed over, it would be missed only in the middle of a series
            raise CaseError(
                f"{display_path(path)}: found a damaged DICOM file, expected an MR image. Copy it again."
            ) from None
        return {}  # DICOM without a picture
    return {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of ITK and GDCM to themselves: what matters of them is checked here, and they name files.

    A decoder may also set the process's locale to C, after which Python reads text as ASCII: it is set back.
    """
    language = locale.setlocale(locale.LC_CTYPE)
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
        locale.setlocale(locale.LC_CTYPE, language)
