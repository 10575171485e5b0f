"""The layouts without a dataset.json, where the names of folders and files say whose they are: BraTS, BIDS, collections."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.cases.dataset_json import channel_of
from brats_utils.cases.files import (
    LABEL_TREE,
    OTHER,
    channel_in,
    folders_of,
    is_label,
    order_scans,
    owner_in,
    prepared_steps,
    rank_label,
    stands_for_file,
    stem_of,
    volumes_of,
)
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

MAX_DEPTH = 7
"""How far below a folder patients are looked for: archives of TCIA have IvyGAP-Radiomics six folders down."""

VISIT = r"\d{1,3}|t\d|tp\d+|time.?point.*|week.*|visit.*|baseline.*|follow.*|pre.?op.*|post.?op.*"
"""Names of folders that tell visits of a patient apart, and not patients: RHUH-GBM, MU-Glioma-Post, LUMIERE."""

Images = tuple[Path | None, ...]
Found = tuple[str, Images, list[Path]]
"""Id, scans and labels."""


@dataclass(frozen=True)
class Patient:
    """What lies in one place."""

    name: str  # of the folder or the file
    home: Path  # that folder or file
    images: Images
    labels: list[Path]
    named: bool = False  # whether names say which channel is which
    how: str = ""  # what is to be said of the layout, where it is an unusual one


def list_patients(folder: Path) -> tuple[str, list[Found]]:
    """The patients of a folder without dataset.json: in folders of their own, as files side by side, or a single one."""
    patients = sorted(_find_patients(folder, MAX_DEPTH), key=lambda patient: patient.home)
    patients = _join_trees(_drop_copies(patients), folder)
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
    scans, labels = _scans_and_labels(folder)
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
                yield Patient(name, files[0], order_scans(files), _labels_of(name, labels, groups), named=True)
        else:
            labels = labels + _derived_labels(folder)
            aligned = None if labels else _find_aligned(folder)
            yield aligned or Patient(_name_folder(folder), folder, order_scans(scans), labels, named=True)
        return
    sequences = list(_find_sequences(folder, folders))
    if sequences:
        yield from sequences
        return
    names = [stem_of(path) for path in scans]
    for path in scans:
        yield Patient(
            stem_of(path), path, (path,), labels if len(scans) == 1 else _labels_of(stem_of(path), labels, names)
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
        inside, beside = _scans_and_labels(path)
        if ((path / "prediction.json").exists() or (path / "cases.csv").exists()) and not inside:
            continue  # what `predict` and `evaluate` write
        if any(map(channel_in, inside)) or (
            depth > 1 and not inside and any(below.is_dir() for below in path.iterdir())
        ):
            yield from _find_patients(path, depth - 1)
        else:
            yield Patient(_name_folder(path), path, tuple(inside), beside)


def _has_patient(folder: Path) -> bool:
    """Whether there are scans of a patient in a folder; those of LUMIERE's segmentations are of the patient above."""
    return any(map(channel_in, volumes_of(folder))) and not re.search(LABEL_TREE, folder.name, re.IGNORECASE)


def _scans_and_labels(folder: Path) -> tuple[list[Path], list[Path]]:
    volumes = volumes_of(folder)
    labels = [path for path in volumes if is_label(path)]
    return [path for path in volumes if path not in labels], labels


def _find_sequences(folder: Path, folders: Sequence[Path]) -> Iterator[Patient]:
    """Patients whose scans lie in a folder a sequence, as in the Erasmus Glioma Database: `1_T1/NIFTI/T1.nii.gz`.

    Where there is one scan in each, the folder is the patient; where there are more, they are told apart by their names.
    Source of the layout: van der Voort 2021, doi 10.1016/j.dib.2021.107191.
    """
    words = {path: channel_of(re.sub(r"^\d+[_-]", "", path.name)) for path in folders}
    if len({*words.values()} - {None}) < len(CHANNELS) - 1:
        return
    masks = [file for path in folders if re.search(LABEL_TREE, path.name, re.I) for file in _volumes_below(path)]
    held = {path: _volumes_below(path) for path, channel in words.items() if channel}
    single = all(len(files) <= 1 for files in held.values())
    owners = {owner_in(scan) for files in held.values() for scan in files}
    for owner in [_name_folder(folder)] if single else sorted(owners):
        scans: dict[str | None, list[Path]] = {}
        for path, files in held.items():
            own = [scan for scan in files if single or owner_in(scan) == owner]
            scans.setdefault(words[path], []).extend(own)
        images = tuple(path for channel in CHANNELS for path in scans.get(channel) or (None,))
        labels = masks if single else _labels_of(owner, masks, owners)
        home = folder if single else next(path for path in images if path)
        yield Patient(owner, home, images, labels, named=True, how="a folder a sequence")


def _volumes_below(folder: Path, depth: int = 2) -> list[Path]:
    below = folders_of(folder) if depth else []
    own = volumes_of(folder)
    return own + [path for inside in below if not stands_for_file(inside) for path in _volumes_below(inside, depth - 1)]


def _find_aligned(home: Path) -> Patient | None:
    """The scans of a patient once more, on one grid with a label: LUMIERE has them in folders of its programs.

    `DeepBraTumIA-segmentation/atlas/skull_strip` holds the scans, and `segmentation` beside it the label. Labels of other
    tissues, as HD-GLIO's, are left out. Source: Suter 2022, doi 10.1038/s41597-022-01881-7.
    """
    found = []
    places = dict.fromkeys(path.parent for path in sorted(home.rglob("*")) if channel_in(path) == "FLAIR")
    for scans in places.keys() - {home}:
        images = order_scans(volumes_of(scans))
        labels = [path for place in (scans, *folders_of(scans.parent)) for path in _scans_and_labels(place)[1]]
        labels = [path for path in dict.fromkeys(labels) if rank_label(path, home) != OTHER]
        if None not in images and len(images) == len(CHANNELS) and len(labels) == 1:
            below = scans.parent.relative_to(home).as_posix()
            how = f"scans and labels of {below}"
            found.append(Patient(_name_folder(home), home, images, labels, named=True, how=how))
    return found[0] if len(found) == 1 else None


def _join_trees(patients: Sequence[Patient], root: Path) -> list[Patient]:
    """Give patients the labels that lie in a folder of their own, by the name of the patient.

    Each file goes to the patient with whose name, or with what stands before the channel in the names of whose scans, its
    own name begins; or whose name the folder has that it lies in. In UPENN-GBM, scans are in `images_structural/ID/` and
    labels in `images_segm/ID_segm.nii.gz`; in IvyGAP-Radiomics they are below `1_Images_SRI` and `3_Annotations_SRI`.
    Source: Bakas 2022, doi 10.1038/s41597-022-01560-7; Pati 2020, doi 10.1002/mp.14556.
    """
    scanned = [patient for patient in patients if patient.named]
    by_name: dict[str, set[int]] = {}
    for index, patient in enumerate(scanned):
        for name in {patient.name, *(owner_in(path) for path in patient.images if path)} - {""}:
            by_name.setdefault(name, set()).add(index)
    given: dict[int, list[Path]] = {}
    others: list[Patient] = []
    trees: set[str] = set()
    for patient in patients:
        if patient.named:
            continue
        tree = any(re.search(LABEL_TREE, part, re.I) for part in patient.home.relative_to(root).parts)
        files = patient.labels + [path for path in patient.images if path and tree]
        owners = {path: _owner_of(path, by_name, scanned) for path in files} if tree or not patient.images else {}
        left = [path for path in files if owners.get(path) is None]
        if not owners or left:
            others.append(replace(patient, images=(), labels=left) if owners else patient)
        for path, owner in owners.items():
            if owner is not None:
                given.setdefault(owner, []).append(path)
                trees.add(_tree_of(path, scanned[owner].home))
    how = f"labels in {' and '.join(sorted(trees))}" if trees else ""
    joined = [
        replace(p, labels=p.labels + given[index], how=p.how or how) if index in given else p
        for index, p in enumerate(scanned)
    ]
    names, homes = {p.name for p in joined}, {p.home.parent for p in joined}
    extra = [p for p in others if p.images and not p.labels and p.name in names and p.home.parent not in homes]
    return joined + [p for p in others if p not in extra]  # without other sequences, as in UPENN-GBM's images_DTI


def _tree_of(path: Path, home: Path) -> str:
    """The topmost folder in which a label lies and its patient does not."""
    return next(folder.name for folder in reversed(path.parents) if folder not in home.parents)


def _owner_of(path: Path, by_name: dict[str, set[int]], scanned: Sequence[Patient]) -> int | None:
    """The patient with whose name that of a file begins, the longest such name, or that of its folder; None if unclear.

    Of several of a name, as in HGG and LGG, it is the one with whom the file shares most names of folders.
    """
    stem = stem_of(path)
    ends = [match.start() for match in re.finditer(r"[^a-zA-Z0-9]", stem)]
    begins = (by_name.get(stem[:end]) for end in (len(stem), *reversed(ends)))
    found = next(filter(None, begins), by_name.get(path.parent.name, set()))
    shared = {index: len({*path.parts} & {*scanned[index].home.parts}) for index in found}
    best = [index for index, count in shared.items() if count == max(shared.values())]
    return best[0] if len(best) == 1 else None


def _drop_copies(patients: Sequence[Patient]) -> list[Patient]:
    """Without scans that are there once more with words of `files.PREPARED`, as in images_structural_unstripped."""

    def steps(patient: Patient) -> int:
        return max((prepared_steps(path) for path in patient.images if path), default=0)

    least: dict[str, int] = {}
    for patient in patients:
        if patient.named:
            least[patient.name] = min(steps(patient), least.get(patient.name, steps(patient)))
    return [p for p in patients if not p.named or steps(p) == least[p.name]]


def _group_scans(scans: Sequence[Path]) -> dict[str, list[Path]]:
    """Scans by what stands before the name of the channel, where that gives a whole patient or several of three; else all."""
    groups: dict[str, list[Path]] = {}
    for path in scans:
        if channel_in(path):
            groups.setdefault(owner_in(path), []).append(path)
    counts = [len({channel_in(path) for path in files}) for files in groups.values()]
    return groups if len(CHANNELS) in counts or counts.count(len(CHANNELS) - 1) > 1 else {"": list(scans)}


def _name_folder(home: Path) -> str:
    """Name a patient after the folder; in BIDS after subject and session."""
    path = Path(os.path.abspath(home))  # a link keeps its own name
    entities = [part for part in path.parts if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) if entities and path.name.startswith(("anat", "ses-")) else path.name


def _derived_labels(home: Path) -> list[Path]:
    """Labels that BIDS keeps apart from the scans, in `derivatives`."""
    root = next((parent.parent for parent in home.resolve().parents if parent.name.startswith("sub-")), None)
    if root is None or home.name != "anat":
        return []
    folders = root.glob(f"derivatives/*/{home.resolve().relative_to(root)}")
    return sorted(path for folder in folders for path in _scans_and_labels(folder)[1])


def _labels_of(name: str, labels: Sequence[Path], names: Iterable[str]) -> list[Path]:
    """Labels named like a patient with more after it; A10_seg is not A1's, nor A_2_seg A's where there is an A_2."""
    rivals = [other for other in names if len(other) > len(name)]
    starts = [re.compile(rf"{re.escape(text)}[^a-zA-Z0-9]") for text in (name, *rivals)]
    return [p for p in labels if _begins(p, starts[0]) and not any(_begins(p, start) for start in starts[1:])]


def _begins(path: Path, start: re.Pattern[str]) -> bool:
    return bool(start.match(f"{stem_of(path)}."))
