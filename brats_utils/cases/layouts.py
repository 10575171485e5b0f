"""Folders of patients: which files are whose scans, and which is the label."""

import re
from dataclasses import dataclass
from pathlib import Path

from brats_utils.cases.reader import ScanError, ScanFiles, list_files
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

FILE_NAMES = {
    "FLAIR": ("flair", "t2f"),
    "T1w": ("t1", "t1w", "t1n"),
    "T1gd": ("t1gd", "t1ce", "t1c"),
    "T2w": ("t2", "t2w"),
}
"""Last words of file names, as in `BraTS2021_00000_t1ce.nii.gz`. Source: the releases of BraTS 2021 and 2023."""

PREDICTED = ("segmentation", "regions", "probabilities", "uncertainty")
"""Volumes that `predict` writes. Beside its `prediction.json` they are neither scans nor labels."""


@dataclass(frozen=True)
class LabelledScan:
    """A patient's scans with a label to score against.

    Attributes:
        case_id: name of the patient.
        image: what `read_scan` takes.
        label: integer labels on the scans' grid.
    """

    case_id: str
    image: ScanFiles
    label: Path


def find_patients(folder: Path) -> dict[str, ScanFiles]:
    """List the patients of a folder: each a sub-folder with four scans or one 4D file, or a single 4D file.

    Files of a patient are told apart by the last word of their name, see `FILE_NAMES`. Labels, with a word in their
    name that starts with `seg`, and hidden files are left out. What is missing or double is left to `read_scan` to
    refuse, so that one bad patient does not hide the others.

    Args:
        folder: of sub-folders, of 4D files, or the folder of one patient.

    Returns:
        Files by patient, sorted by name.

    Raises:
        ScanError: if there are neither sub-folders nor NIfTI files, or two patients of one name.
    """
    if not folder.is_dir():
        raise ScanError(f"{display_path(folder)}: not found, or no folder. Expected a folder of patients.")
    if any(_files_of(folder, channel) for channel in CHANNELS):
        return {folder.resolve().name: _scans_of(folder)}
    patients: dict[str, ScanFiles] = {}
    homes: dict[str, Path] = {}
    scans = [path for path in _volumes_of(folder) if not _is_label(path)]
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not (entry.is_dir() or entry in scans):
            continue
        if (entry / "prediction.json").exists() and not _scans_of(entry):
            continue  # predicted into the folder of the 4D files
        name = entry.name if entry.is_dir() else _stem(entry)
        if name in homes:
            raise ScanError(
                f"{display_path(homes[name])} and {display_path(entry)}: found two patients of the name {name}, expected "
                "one. Rename one of them, or move it elsewhere."
            )
        homes[name], patients[name] = entry, _scans_of(entry) if entry.is_dir() else entry
    if not patients:
        raise ScanError(
            f"{display_path(folder)}: found no patient, expected sub-folders with four scans each "
            f"(names ending in {', '.join(words[0] for words in FILE_NAMES.values())}) or 4D NIfTI files."
        )
    return patients


def find_labelled_patients(folder: Path) -> list[LabelledScan]:
    """List the patients of a folder that have a label: beside their scans, a file with a word in its name that starts with `seg`.

    Raises:
        ScanError: if no patient has one, or a patient has two, or no scan beside it.
    """
    found, unclear = [], []
    patients = find_patients(folder)
    for name, files in patients.items():
        scans = list_files(files)
        home = scans[0].parent if scans else folder / name
        if home == folder and len(patients) > 1:
            continue  # 4D files side by side: nothing says whose label it is
        labels = [path for path in _volumes_of(home) if _is_label(path)]
        if len(labels) > 1:
            unclear.append(f"{name} has {len(labels)} labels ({', '.join(path.name for path in labels)})")
        elif labels and not scans:
            unclear.append(f"{name} has a label and no scan")
        elif labels:
            found.append(LabelledScan(name, files, labels[0]))
    if unclear:
        raise ScanError(
            f"{display_path(folder)}: found patients that cannot be scored: {'; '.join(unclear)}. Expected scans and "
            "one file with a word in its name that starts with `seg` a patient; move the others elsewhere."
        )
    if not found:
        raise ScanError(
            f"{display_path(folder)}: found no labelled patient, expected MSD's layout with a dataset.json, or a folder "
            "a patient with four scans or one 4D file, and one file with a word in its name that starts with `seg`."
        )
    return found


def _scans_of(folder: Path) -> ScanFiles:
    """The four scans of a patient's folder; a single other NIfTI is taken for a 4D file."""
    found = [_files_of(folder, channel) for channel in CHANNELS]
    if not any(found):
        volumes = [path for path in _volumes_of(folder) if not _is_label(path)]
        return volumes[0] if len(volumes) == 1 else volumes
    missing = [channel for channel, paths in zip(CHANNELS, found, strict=True) if not paths]
    return [
        *(path for paths in found for path in paths),
        *(folder / f"{FILE_NAMES[name][0]}.nii.gz" for name in missing),
    ]


def _volumes_of(folder: Path) -> list[Path]:
    """NIfTI files, without our own predictions and the `._` files that macOS leaves beside each."""
    ours = {f"{kind}.nii.gz" for kind in PREDICTED} if (folder / "prediction.json").exists() else set()
    paths = (path for path in folder.iterdir() if path.name.endswith((".nii", ".nii.gz")))
    return sorted(path for path in paths if not path.name.startswith(".") and path.name not in ours)


def _is_label(path: Path) -> bool:
    return any(word.startswith("seg") for word in re.split(r"[^a-z]+", _stem(path).lower()))


def _files_of(folder: Path, channel: str) -> list[Path]:
    volumes = _volumes_of(folder)
    return [path for path in volumes if re.split(r"[^a-z0-9]", _stem(path).lower())[-1] in FILE_NAMES[channel]]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
