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
    homes: dict[str, Path] = {}
    found: list[Found] = []
    for patient, case_id in zip(patients, _name_cases(patients, folder), strict=True):
        if case_id in homes:
            raise CaseError(
                f"{display_path(homes[case_id])} and {display_path(patient.home)}: found two patients of the name {case_id}, "
                "expected one. Rename one of them, or move it elsewhere."
            )
        homes[case_id] = patient.home
        found.append((case_id, patient.images, patient.labels))
    return _describe_layout(patients), found


def _name_cases(patients: Sequence[Patient], folder: Path) -> list[str]:
    """Name each patient after the folder or file, and after the folders above where that is not clear enough."""
    visits = [patient.name for patient in patients if re.fullmatch(VISIT, patient.name, re.IGNORECASE)]
    visits_repeat = len(set(visits)) < len(visits)
    parents: dict[str, set[Path]] = {}
    for patient in patients:
        parents.setdefault(patient.name, set()).add(patient.home.parent)
    names = []
    for patient in patients:
        is_elsewhere_too = len(parents[patient.name]) > 1
        is_visit = visits_repeat and patient.name in visits
        above = patient.home.parent.relative_to(folder).parts if is_elsewhere_too or is_visit else ()
        names.append("_".join((*above, patient.name)))
    return names


def _describe_layout(patients: Sequence[Patient]) -> str:
    """Name the layout, and what is unusual in it."""
    if all(len(patient.images) == 1 for patient in patients):
        layout = "4D files"
    elif any(patient.home.name == "anat" for patient in patients):
        layout = "BIDS"
    else:
        layout = "four files a patient"
    unusual = dict.fromkeys(patient.how for patient in patients if patient.how)
    return ", ".join((layout, *unusual))


def _find_patients(folder: Path, depth: int) -> Iterator[Patient]:
    """The patients in a folder and at most `depth` folders below."""
    scans, labels = scans_and_labels(folder)
    folders = [path for path in folders_of(folder) if not stands_for_file(path)]
    if any(map(channel_in, scans)):
        _refuse_patients_below(folder, folders)
        yield from _find_named(folder, scans, labels)
        return
    sequences = list(find_sequences(folder, folders))
    if sequences:
        yield from sequences
        return
    names = [stem_of(path) for path in scans]
    for path, name in zip(scans, names, strict=True):  # 4D files
        own_labels = labels if len(scans) == 1 else labels_of(name, labels, names)
        yield Patient(name, path, (path,), own_labels)
    for path in _select_bids(folder, folders):
        yield from _find_below(path, depth)


def _find_named(folder: Path, scans: Sequence[Path], labels: list[Path]) -> Iterator[Patient]:
    """The patients whose scans, with names of channels, lie side by side in a folder: several, or one."""
    groups = _group_scans(scans)
    if len(groups) > 1:
        for name, files in groups.items():
            yield Patient(name, files[0], order_scans(files), labels_of(name, labels, groups), named=True)
        return
    labels = labels + _derived_labels(folder)
    aligned = None if labels else find_aligned(folder)
    if aligned:
        yield aligned
        return
    yield Patient(name_folder(folder), folder, order_scans(scans), labels or labels_below(folder), named=True)


def _refuse_patients_below(folder: Path, folders: Sequence[Path]) -> None:
    """Refuse a folder with scans of a patient in it, where there are patients in folders below as well."""
    below = next((path for path in folders if _has_patient(path)), None)
    if below:
        raise CaseError(
            f"{display_path(folder)}: found scans of one patient, and scans of others in {below.name}, expected one or "
            "the other: which do you mean? Name the patient's own folder, or move the scans into one."
        )


def _select_bids(folder: Path, folders: Sequence[Path]) -> list[Path]:
    """In BIDS the folders of subjects, of sessions and of anatomy; elsewhere all."""
    if any(path.name.startswith("sub-") for path in folders):  # neither derivatives nor code
        return [path for path in folders if path.name.startswith("sub-")]
    if folder.name.startswith(("sub-", "ses-")):  # nor diffusion or function
        return [path for path in folders if path.name.startswith("ses-") or path.name == "anat"]
    return list(folders)


def _find_below(folder: Path, depth: int) -> Iterator[Patient]:
    """The patients in one of the folders of `_find_patients`."""
    if (folder / "dataset.json").is_file():
        raise CaseError(
            f"{display_path(folder.parent)}: found a data set in {folder.name}. Name that folder, and not this one."
        )
    scans, labels = scans_and_labels(folder)
    is_output = (folder / "prediction.json").exists() or (folder / "cases.csv").exists()
    if is_output and not scans:
        return  # what `predict` and `evaluate` write
    may_have_more = depth > 1 and not scans and any(path.is_dir() for path in folder.iterdir())
    if any(map(channel_in, scans)) or may_have_more:
        yield from _find_patients(folder, depth - 1)
    else:
        yield Patient(name_folder(folder), folder, tuple(scans), labels)


def _has_patient(folder: Path) -> bool:
    """Whether there are scans of a patient in a folder; those of LUMIERE's segmentations are of the patient above."""
    return any(map(channel_in, volumes_of(folder))) and not re.search(LABEL_TREE, folder.name, re.IGNORECASE)


def _group_scans(scans: Sequence[Path]) -> dict[str, list[Path]]:
    """Scans by what stands before the name of the channel, where that gives a whole patient or several of three; else all."""
    groups: dict[str, list[Path]] = {}
    for path in scans:
        if channel_in(path):
            groups.setdefault(owner_in(path), []).append(path)
    counts = []
    for files in groups.values():
        channels = {channel_in(path) for path in files}
        counts.append(len(channels))
    several_of_three = counts.count(len(CHANNELS) - 1) > 1
    return groups if len(CHANNELS) in counts or several_of_three else {"": list(scans)}


def _derived_labels(home: Path) -> list[Path]:
    """Labels that BIDS keeps apart from the scans, in `derivatives`."""
    root = next((parent.parent for parent in home.resolve().parents if parent.name.startswith("sub-")), None)
    if root is None or home.name != "anat":
        return []
    folders = root.glob(f"derivatives/*/{home.resolve().relative_to(root)}")
    return sorted(path for folder in folders for path in scans_and_labels(folder)[1])
