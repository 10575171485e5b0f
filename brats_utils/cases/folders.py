"""The layouts without a dataset.json, where the names of folders and files say whose they are: BraTS, BIDS, 4D files."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.cases.dataset_json import channel_of, without_channel
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path

PREDICTED = ("segmentation", "regions", "probabilities", "uncertainty")
"""Volumes that `predict` writes. Beside its `prediction.json` they are neither scans nor labels."""

MAX_DEPTH = 3
"""How far below a folder patients are looked for: BraTS 2017 to 2019 has HGG and LGG, BIDS has sessions."""

Images = tuple[Path | None, ...]
Found = tuple[str, Images, list[Path]]
"""Id, scans and labels."""


def list_patients(folder: Path) -> tuple[str, list[Found]]:
    """The patients of a folder without dataset.json: in folders of their own, as files side by side, or a single one."""
    patients = sorted(_find_patients(folder, MAX_DEPTH), key=lambda patient: patient[1])
    homes: dict[str, Path] = {}
    found: list[Found] = []
    for name, home, images, labels in patients:
        elsewhere = any(name == other and home.parent != place.parent for other, place, _, _ in patients)
        case_id = "_".join((*home.parent.relative_to(folder).parts, name)) if elsewhere else name
        if case_id in homes:
            raise CaseError(
                f"{display_path(homes[case_id])} and {display_path(home)}: found two patients of the name {case_id}, "
                "expected one. Rename one of them, or move it elsewhere."
            )
        homes[case_id] = home
        found.append((case_id, images, labels))
    if all(len(images) == 1 for _, images, _ in found):
        return "4D files", found
    return "BIDS" if any(home.name == "anat" for home in homes.values()) else "four files a patient", found


def _find_patients(folder: Path, depth: int) -> Iterator[tuple[str, Path, Images, list[Path]]]:
    """Name, place, scans and labels of each patient, sorted by place."""
    scans, labels = _scans_and_labels(folder)
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))
    if _has_channels(folder):
        below = next(filter(_has_channels, folders), None)
        if below:
            raise CaseError(
                f"{display_path(folder)}: found scans of one patient, and scans of others in {below.name}, expected one or "
                "the other: which do you mean? Name the patient's own folder, or move the scans into one."
            )
        groups = _group_scans(scans)
        if len(groups) > 1:  # several patients side by side
            for name, files in groups.items():
                yield name, files[0], _order_scans(files), _labels_of(name, labels, groups)
        else:
            yield _name_folder(folder), folder, _order_scans(scans), labels + _derived_labels(folder)
        return
    names = [stem_of(path) for path in scans]
    for path in scans:
        yield stem_of(path), path, (path,), labels if len(scans) == 1 else _labels_of(stem_of(path), labels, names)
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
        if _has_channels(path) or (depth > 1 and not inside and any(below.is_dir() for below in path.iterdir())):
            yield from _find_patients(path, depth - 1)
        elif len(inside) == len(CHANNELS):
            raise CaseError(
                f"{display_path(path)}: found {', '.join(scan.name for scan in inside)}, whose names do not say which channel "
                f"each is, expected last words such as {', '.join(CHANNELS)}. Rename them."
            )
        else:
            yield _name_folder(path), path, tuple(inside), beside


def _has_channels(folder: Path) -> bool:
    return any(channel_of(stem_of(path)) for path in volumes_of(folder))


def _group_scans(scans: Sequence[Path]) -> dict[str, list[Path]]:
    """Scans by what stands before the name of the channel, where that gives a whole patient or several of three; else all."""
    groups: dict[str, list[Path]] = {}
    for path in scans:
        if channel_of(stem_of(path)):
            groups.setdefault(without_channel(stem_of(path)), []).append(path)
    counts = [len({channel_of(stem_of(path)) for path in files}) for files in groups.values()]
    return groups if len(CHANNELS) in counts or counts.count(len(CHANNELS) - 1) > 1 else {"": list(scans)}


def _name_folder(home: Path) -> str:
    """Name a patient after the folder; in BIDS after subject and session."""
    path = Path(os.path.abspath(home))  # a link keeps its own name
    entities = [part for part in path.parts if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) if entities and path.name.startswith(("anat", "ses-")) else path.name


def _order_scans(scans: Sequence[Path]) -> Images:
    """The four scans of a patient in the order of `CHANNELS`; None keeps the place of what is missing."""
    found = {channel: [path for path in scans if channel_of(stem_of(path)) == channel] for channel in CHANNELS}
    return tuple(path for name in CHANNELS for path in found[name] or (None,))


def _derived_labels(home: Path) -> list[Path]:
    """Labels that BIDS keeps apart from the scans, in `derivatives`."""
    root = next((parent.parent for parent in home.resolve().parents if parent.name.startswith("sub-")), None)
    if root is None or home.name != "anat":
        return []
    folders = root.glob(f"derivatives/*/{home.resolve().relative_to(root)}")
    return sorted(path for folder in folders for path in _scans_and_labels(folder)[1])


def _scans_and_labels(folder: Path) -> tuple[list[Path], list[Path]]:
    volumes = volumes_of(folder)
    labels = {
        p for p in volumes if not channel_of(stem_of(p)) and re.search(r"(?<![a-z])(seg|dseg[^a-z])", p.name, re.I)
    }
    return [path for path in volumes if path not in labels], sorted(labels)


def _labels_of(name: str, labels: Sequence[Path], names: Iterable[str]) -> list[Path]:
    """Labels named like a patient with more after it; A10_seg is not A1's, nor A_2_seg A's where there is an A_2."""
    rivals = [other for other in names if len(other) > len(name)]
    starts = [re.compile(rf"{re.escape(text)}[^a-zA-Z0-9]") for text in (name, *rivals)]
    return [p for p in labels if starts[0].match(p.name) and not any(start.match(p.name) for start in starts[1:])]


def volumes_of(folder: Path) -> list[Path]:
    """NIfTI files, without our own predictions and the `._` files that macOS leaves beside each."""
    ours = {f"{kind}.nii.gz" for kind in PREDICTED} if (folder / "prediction.json").exists() else set()
    paths = (path for path in folder.glob("*") if path.name.lower().endswith((".nii", ".nii.gz")) and path.is_file())
    return sorted(path for path in paths if not path.name.startswith(".") and path.name not in ours)


def stem_of(path: Path) -> str:
    """Give the name of a file without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
