"""Scans and labels of a patient that do not lie beside each other: a folder a sequence, labels in a tree of their own."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from brats_utils.cases.dataset_json import channel_of
from brats_utils.cases.files import (
    LABEL_TREE,
    OTHER,
    channel_in,
    folders_of,
    labels_of,
    name_folder,
    order_scans,
    owner_in,
    prepared_steps,
    rank_label,
    scans_and_labels,
    stands_for_file,
    stem_of,
    volumes_of,
)
from brats_utils.labels import CHANNELS

MAX_SEQUENCES = 30
"""A folder with more folders is no patient; it saves looking into those of a whole collection."""

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


def find_sequences(folder: Path, folders: Sequence[Path]) -> Iterator[Patient]:
    """Patients whose scans lie in a folder a sequence, as in the Erasmus Glioma Database: `1_T1/NIFTI/T1.nii.gz`.

    Where there is one scan in each, the folder is the patient; where there are more, they are told apart by their names.
    Source of the layout: van der Voort 2021, doi 10.1016/j.dib.2021.107191.
    """
    words = {path: channel_of(re.sub(r"^\d+[_-]", "", path.name)) for path in folders}
    if len(folders) <= MAX_SEQUENCES and not any(words.values()):
        words = _sequences_of_one(folders)
    if len({*words.values()} - {None}) < len(CHANNELS) - 1:
        return
    label_folders = [path for path in folders if re.search(LABEL_TREE, path.name, re.I)]
    masks = [file for path in label_folders for file in _volumes_below(path)]
    held = {path: _volumes_below(path) for path, channel in words.items() if channel}
    single = all(len(files) <= 1 for files in held.values())
    owners = {owner_in(scan) for files in held.values() for scan in files}
    for owner in [name_folder(folder)] if single else sorted(owners):
        scans: dict[str | None, list[Path]] = {}
        for path, files in held.items():
            own = [scan for scan in files if single or owner_in(scan) == owner]
            scans.setdefault(words[path], []).extend(own)
        images = tuple(path for channel in CHANNELS for path in scans.get(channel) or (None,))
        labels = masks if single else labels_of(owner, masks, owners)
        home = folder if single else next(path for path in images if path)
        yield Patient(owner, home, images, labels, named=True, how="a folder a sequence")


def _sequences_of_one(folders: Sequence[Path]) -> dict[Path, str | None]:
    """The channels of folders whose names do not tell, by the one scan in each, if all are called after one patient."""
    channels: dict[Path, str | None] = {}
    owners = set()
    for path in folders:
        scans = [scan for scan in _volumes_below(path) if channel_in(scan)]
        if len(scans) > 1:
            return {}
        if scans:
            channels[path] = channel_in(scans[0])
            owners.add(owner_in(scans[0]))
    return channels if len(owners) == 1 else {}


def labels_below(home: Path) -> list[Path]:
    """Labels of a patient in a folder of labels beside the scans."""
    trees = [path for path in folders_of(home) if re.search(LABEL_TREE, path.name, re.IGNORECASE)]
    volumes = [file for tree in trees for file in volumes_of(tree) if not channel_in(file)]
    return [path for path in volumes if rank_label(path, home) != OTHER]


def _volumes_below(folder: Path, depth: int = 2) -> list[Path]:
    found = volumes_of(folder)
    if depth == 0:
        return found
    for inside in folders_of(folder):
        if not stands_for_file(inside):
            found += _volumes_below(inside, depth - 1)
    return found


def find_aligned(home: Path) -> Patient | None:
    """The scans of a patient once more, on one grid with a label: LUMIERE has them in folders of its programs.

    `DeepBraTumIA-segmentation/atlas/skull_strip` holds the scans, and `segmentation` beside it the label. Labels of other
    tissues, as HD-GLIO's, are left out. Source: Suter 2022, doi 10.1038/s41597-022-01881-7.
    """
    found = []
    places = dict.fromkeys(path.parent for path in sorted(home.rglob("*")) if channel_in(path) == "FLAIR")
    for scans in places.keys() - {home}:
        images = order_scans(volumes_of(scans))
        found_labels: list[Path] = []
        for place in (scans, *folders_of(scans.parent)):
            found_labels += scans_and_labels(place)[1]
        labels = [path for path in dict.fromkeys(found_labels) if rank_label(path, home) != OTHER]
        if None not in images and len(images) == len(CHANNELS) and len(labels) == 1:
            below = scans.parent.relative_to(home).as_posix()
            how = f"scans and labels of {below}"
            found.append(Patient(name_folder(home), home, images, labels, named=True, how=how))
    return found[0] if len(found) == 1 else None


def join_trees(patients: Sequence[Patient], root: Path) -> list[Patient]:
    """Give patients the labels that lie in a folder of their own, by the name of the patient.

    Each file goes to the patient with whose name, or with what stands before the channel in the names of whose scans, its
    own name begins; or whose name the folder has that it lies in. In UPENN-GBM, scans are in `images_structural/ID/` and
    labels in `images_segm/ID_segm.nii.gz`; in IvyGAP-Radiomics they are below `1_Images_SRI` and `3_Annotations_SRI`.
    Source: Bakas 2022, doi 10.1038/s41597-022-01560-7; Pati 2020, doi 10.1002/mp.14556.
    """
    scanned = [patient for patient in patients if patient.named]
    by_name = _index_names(scanned)
    given: dict[int, list[Path]] = {}
    others: list[Patient] = []
    trees: set[str] = set()
    for patient in patients:
        if patient.named:
            continue
        in_tree = any(re.search(LABEL_TREE, part, re.I) for part in patient.home.relative_to(root).parts)
        if patient.images and not in_tree:
            others.append(patient)
            continue
        files = patient.labels + [path for path in patient.images if path and in_tree]
        left: list[Path] = []
        for path in files:
            owner = _owner_of(path, by_name, scanned)
            if owner is None:
                left.append(path)
            else:
                given.setdefault(owner, []).append(path)
                trees.add(_tree_of(path, scanned[owner].home))
        if left:
            others.append(replace(patient, images=(), labels=left))
        elif not files:
            others.append(patient)
    joined = _give_labels(scanned, given, how=f"labels in {' and '.join(sorted(trees))}")
    return joined + _drop_sequences(others, joined)


def _index_names(patients: Sequence[Patient]) -> dict[str, set[int]]:
    """The places of patients in a list, by their names and by what stands before the channel in the names of their scans."""
    by_name: dict[str, set[int]] = {}
    for index, patient in enumerate(patients):
        owners = {owner_in(path) for path in patient.images if path}
        for name in ({patient.name} | owners) - {""}:
            by_name.setdefault(name, set()).add(index)
    return by_name


def _give_labels(patients: Sequence[Patient], given: Mapping[int, list[Path]], *, how: str) -> list[Patient]:
    """Give patients more labels, by their place in the list; `how` says where these lie."""
    joined = []
    for index, patient in enumerate(patients):
        if index in given:
            patient = replace(patient, labels=patient.labels + given[index], how=patient.how or how)
        joined.append(patient)
    return joined


def _drop_sequences(others: Sequence[Patient], joined: Sequence[Patient]) -> list[Patient]:
    """Without scans of other sequences of the same patients, as in UPENN-GBM's images_DTI."""
    names = {patient.name for patient in joined}
    homes = {patient.home.parent for patient in joined}
    kept = []
    for patient in others:
        is_scan = bool(patient.images) and not patient.labels
        if not (is_scan and patient.name in names and patient.home.parent not in homes):
            kept.append(patient)
    return kept


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


def drop_copies(patients: Sequence[Patient]) -> list[Patient]:
    """Without scans that are there once more with words of `files.PREPARED`, as in images_structural_unstripped."""

    def steps(patient: Patient) -> int:
        return max((prepared_steps(path) for path in patient.images if path), default=0)

    least: dict[str, int] = {}
    for patient in patients:
        if patient.named:
            least[patient.name] = min(steps(patient), least.get(patient.name, steps(patient)))
    return [p for p in patients if not p.named or steps(p) == least[p.name]]
