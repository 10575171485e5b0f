"""The layouts without a dataset.json, where the names of folders and files say whose they are: BraTS, BIDS, collections."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.cases.files import (
    LABEL_TREE,
    channel_in,
    folders_of,
    labels_of,
    name_folder,
    order_scans,
    owner_in,
    scans_and_labels,
    stands_for_file,
    stem_of,
    volumes_of,
)
from brats_utils.cases.trees import Found, Patient, drop_copies, find_aligned, find_sequences, join_trees, labels_below
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

MAX_DEPTH = 7
"""How far below a folder patients are looked for: archives of TCIA have IvyGAP-Radiomics six folders down."""

VISIT = r"\d{1,3}|t\d|tp\d+|time.?point.*|week.*|visit.*|baseline.*|follow.*|pre.?op.*|post.?op.*"
"""Names of folders that tell visits of a patient apart, and not patients: RHUH-GBM, MU-Glioma-Post, LUMIERE."""


def list_patients(folder: Path) -> tuple[str, list[Found]]:
    """The patients of a folder without dataset.json: in folders of their own, as files side by side, or a single one."""
    patients = sorted(_find_patients(folder, MAX_DEPTH), key=lambda patient: patient.home)
    patients = join_trees(drop_copies(patients), folder)
    for patient in patients:
        if len(patient.images) == len(CHANNELS) and not patient.named:
            raise CaseError(
                f"{display_path(patient.home)}: found {', '.join(path.name for path in patient.images if path)}, whose names "
                f"do not say which channel each is, expected last words such as {', '.join(CHANNELS)}. Rename them."
            )
    visits = [patient.name for patient in patients if re.fullmatch(VISIT, patient.name, re.IGNORECASE)]
    several = len(set(visits)) < len(visits)
    homes: dict[str, Path] = {}
    found: list[Found] = []
    for patient in patients:
        name, home = patient.name, patient.home
        elsewhere = any(name == other.name and home.parent != other.home.parent for other in patients)
        elsewhere = elsewhere or (several and name in visits)
        case_id = "_".join((*home.parent.relative_to(folder).parts, name)) if elsewhere else name
        if case_id in homes:
            raise CaseError(
                f"{display_path(homes[case_id])} and {display_path(home)}: found two patients of the name {case_id}, "
                "expected one. Rename one of them, or move it elsewhere."
            )
        homes[case_id] = home
        found.append((case_id, patient.images, patient.labels))
    hows = dict.fromkeys(patient.how for patient in patients if patient.how)
    if all(len(images) == 1 for _, images, _ in found):
        layout = "4D files"
    else:
        layout = "BIDS" if any(home.name == "anat" for home in homes.values()) else "four files a patient"
    return ", ".join((layout, *hows)), found


def _find_patients(folder: Path, depth: int) -> Iterator[Patient]:
    """The patients in a folder and below."""
    scans, labels = scans_and_labels(folder)
    folders = [path for path in folders_of(folder) if not stands_for_file(path)]
    if any(map(channel_in, scans)):
        below = next(filter(_has_patient, folders), None)
        if below:
            raise CaseError(
                f"{display_path(folder)}: found scans of one patient, and scans of others in {below.name}, expected one or "
                "the other: which do you mean? Name the patient's own folder, or move the scans into one."
            )
        groups = _group_scans(scans)
        if len(groups) > 1:  # several patients side by side
            for name, files in groups.items():
                yield Patient(name, files[0], order_scans(files), labels_of(name, labels, groups), named=True)
        else:
            labels = labels + _derived_labels(folder)
            aligned = None if labels else find_aligned(folder)
            labels = labels or labels_below(folder)
            yield aligned or Patient(name_folder(folder), folder, order_scans(scans), labels, named=True)
        return
    sequences = list(find_sequences(folder, folders))
    if sequences:
        yield from sequences
        return
    names = [stem_of(path) for path in scans]
    for path in scans:
        yield Patient(
            stem_of(path), path, (path,), labels if len(scans) == 1 else labels_of(stem_of(path), labels, names)
        )
    if any(path.name.startswith("sub-") for path in folders):  # BIDS: neither derivatives nor code
        folders = [path for path in folders if path.name.startswith("sub-")]
    elif folder.name.startswith(("sub-", "ses-")):  # nor diffusion or function
        folders = [path for path in folders if path.name.startswith("ses-") or path.name == "anat"]
    for path in folders:
        if (path / "dataset.json").is_file():
            raise CaseError(
                f"{display_path(folder)}: found a data set in {path.name}. Name that folder, and not this one."
            )
        inside, beside = scans_and_labels(path)
        if ((path / "prediction.json").exists() or (path / "cases.csv").exists()) and not inside:
            continue  # what `predict` and `evaluate` write
        if any(map(channel_in, inside)) or (
            depth > 1 and not inside and any(below.is_dir() for below in path.iterdir())
        ):
            yield from _find_patients(path, depth - 1)
        else:
            yield Patient(name_folder(path), path, tuple(inside), beside)


def _has_patient(folder: Path) -> bool:
    """Whether there are scans of a patient in a folder; those of LUMIERE's segmentations are of the patient above."""
    return any(map(channel_in, volumes_of(folder))) and not re.search(LABEL_TREE, folder.name, re.IGNORECASE)


def _group_scans(scans: Sequence[Path]) -> dict[str, list[Path]]:
    """Scans by what stands before the name of the channel, where that gives a whole patient or several of three; else all."""
    groups: dict[str, list[Path]] = {}
    for path in scans:
        if channel_in(path):
            groups.setdefault(owner_in(path), []).append(path)
    counts = [len({channel_in(path) for path in files}) for files in groups.values()]
    return groups if len(CHANNELS) in counts or counts.count(len(CHANNELS) - 1) > 1 else {"": list(scans)}


def _derived_labels(home: Path) -> list[Path]:
    """Labels that BIDS keeps apart from the scans, in `derivatives`."""
    root = next((parent.parent for parent in home.resolve().parents if parent.name.startswith("sub-")), None)
    if root is None or home.name != "anat":
        return []
    folders = root.glob(f"derivatives/*/{home.resolve().relative_to(root)}")
    return sorted(path for folder in folders for path in scans_and_labels(folder)[1])
