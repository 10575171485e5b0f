"""Which files of a folder are whose: every layout that users have; those without a dataset.json are in `folders`."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.dataset_json import channel_of, load_document, read_channels, read_label_schema
from brats_utils.cases.files import KINDS, find_file, rank_label, stem_of, trust_labels, volumes_of
from brats_utils.cases.folders import list_patients
from brats_utils.cases.trees import Found, Images
from brats_utils.labels import CHANNELS, SCORED, WHOLE_TUMOUR, LabelError, LabelSchema
from brats_utils.paths import display_path, say

LAYOUTS = (
    "MSD (dataset.json, 4D files), nnU-Net v1 or v2 (dataset.json, files ending in _0000 to _0003), BraTS (a folder a "
    "patient with four files, named like _flair, _t1, _t1ce, _t2 or -t2f, -t1n, -t1c, -t2w; or a folder a sequence), BIDS "
    "(sub-*/anat), or 4D files"
)


def find_cases(folder: Path, *, schema: LabelSchema | None = None, labelled: bool = True) -> list[Case]:
    """List the cases of a folder, sorted by id, and say in one line what was found.

    A missing sequence is left to `read_case` to refuse, so that one bad patient does not hide the others.

    Args:
        folder: in one of `LAYOUTS`, or the folder of one patient.
        schema: convention of the labels; None to take it from a dataset.json, where there is one.
        labelled: list those with a label alone; otherwise all, and labels are not looked at.

    Raises:
        CaseError: there is no case, or no label, or two of them; or the folder can be read in two ways.
        LabelError: nothing gives the label convention, or a dataset.json contradicts the schema or names other channels;
            or a label that may be the whole tumour alone is said to tell tissues apart.
    """
    if not folder.is_dir():
        raise CaseError(f"{display_path(folder)}: not found, or no folder. Expected patients; 01_setup makes phantoms.")
    document = load_document(folder)
    if document is None and any(folder.glob("*_0000.nii*")) and any(folder.glob("*_0001.nii*")):
        document = _borrow_document(folder)
    if document is not None:
        layout, found = _list_document(folder, document)
    elif any((folder / name).is_dir() for name in ("imagesTr", "labelsTr")):
        raise CaseError(
            f"{display_path(folder)}: found imagesTr or labelsTr without a dataset.json, which says what the channels and "
            "labels are, expected one beside them. Copy it from where the data came from."
        )
    else:
        layout, found = list_patients(folder)
    if not any(images or labels for _, images, labels in found):
        raise CaseError(
            f"{display_path(folder)}: found no patient, expected one of these layouts: {LAYOUTS}.{_describe_files(folder)}"
        )
    heading = f"{display_path(folder)}: {layout}, {len(found)} case{'s' * (len(found) != 1)}"
    if not labelled:
        say(f"{heading}.")
        return [Case(case_id, images) for case_id, images, _ in sorted(found)]
    cases = _take_labelled(folder, found)
    if document is not None:
        schema = read_label_schema(document, schema, source=display_path(folder / "dataset.json"))
    if schema is None:  # {0, 1, 2, 3} fits several: nothing but a human can tell
        raise LabelError(
            f"{display_path(folder)}: found labels without a dataset.json that gives their convention, expected "
            f"label_schema, or --schema with one of {', '.join(SCORED)}. See the table in docs/inference.md."
        )
    _refuse_masks([label for _, _, label in cases], schema)
    said = "dataset.json says" if document is not None else "you say"
    chosen = _describe_choice(folder, found, cases)
    say(f"{heading}, {len(cases)} with a label in the {schema.name} convention, as {said}.{chosen}")
    return [Case(case_id, images, label, schema) for case_id, images, label in cases]


def _refuse_masks(labels: Sequence[Path], schema: LabelSchema) -> None:
    """Refuse labels that are called mask and no more, where the schema tells tissues apart.

    Of the Erasmus Glioma Database, which has such, 0 and 1 would pass for core or edema alone.
    """
    mask = next((label for label in labels if stem_of(label).lower() == "mask"), None)
    if mask and all(schema.known):
        raise LabelError(
            f"{display_path(mask)}: found a label that is called mask and no more, as in the Erasmus Glioma Database, where it "
            f"is the whole tumour as 1, expected --schema {WHOLE_TUMOUR.name}. If yours tells tissues apart, call it seg."
        )


def _describe_files(folder: Path) -> str:
    """Say what lies in a folder without scans; of large ones, in its first thousand files."""
    files = islice((path for path in folder.rglob("*") if path.is_file()), 1000)
    endings = Counter(path.suffix.lower() for path in files if not path.name.startswith("."))
    listed = ", ".join(f"{ending or 'no ending'} ({count})" for ending, count in endings.most_common(3))
    advice = " DICOM is converted first, for instance with dcm2niix." if ".dcm" in endings or "" in endings else ""
    return f" It holds no such files, but files that end in {listed}.{advice}" if listed else ""


def _describe_choice(folder: Path, found: Sequence[Found], cases: Sequence[tuple[str, Images, Path]]) -> str:
    """Say which labels were taken, where some case had several of different kinds."""
    kinds = [{rank_label(label, folder) for label in labels} for _, _, labels in found]
    if all(len(kinds_of_case) < 2 for kinds_of_case in kinds):
        return ""
    by_kind: dict[int, list[Path]] = {}
    for _, _, label in cases:
        by_kind.setdefault(rank_label(label, folder), []).append(label)
    listed = [f"{len(labels)} {KINDS[kind]} ({labels[0].name})" for kind, labels in sorted(by_kind.items())]
    return f" Of several labels of a case the most trusted was taken: {', '.join(listed)}."


def _take_labelled(folder: Path, found: Sequence[Found]) -> list[tuple[str, Images, Path]]:
    """Those that have a label, sorted by id; what is unclear is refused."""
    unclear, cases = [], []
    for case_id, images, labels in sorted(found):
        chosen = trust_labels(labels, folder)
        if len(chosen) > 1:
            unclear.append(f"{case_id} has {len(chosen)} labels ({', '.join(path.name for path in chosen)})")
        elif chosen and not images:
            unclear.append(f"{case_id} has a label and no scan")
        elif chosen:
            cases.append((case_id, images, chosen[0]))
    if unclear:
        raise CaseError(
            f"{display_path(folder)}: found patients that cannot be used: {'; '.join(unclear)}. Expected scans and one file "
            "with a word in its name that starts with `seg`, or `dseg`, a patient; move the others elsewhere."
        )
    if not cases:
        raise CaseError(
            f"{display_path(folder)}: found no labelled patient among {len(found)}, expected cases with a label: listed "
            "under 'training' in a dataset.json, or a file with a word in its name that starts with `seg`, or `dseg`."
        )
    return cases


def _list_document(folder: Path, document: Mapping[str, Any]) -> tuple[str, list[Found]]:
    """The cases of a dataset.json, in the layout of MSD or nnU-Net."""
    name = display_path(folder / "dataset.json")
    channels = read_channels(document, source=name)
    entries = [(_find_images(images, channels, name), label) for images, label in _read_entries(folder, document, name)]
    _refuse_missing(entries, name)
    entries = [(images, label) for images, label in entries if _first(images).is_file()]  # tests are often left out
    names = [_name_entry(images, label) for images, label in entries]
    if len(set(names)) < len(names):
        names = _tell_apart([_first(images) for images, _ in entries], folder)
    if len(set(names)) < len(names):
        raise CaseError(f"{name}: a case is listed twice under 'training'; list each once.")
    found: list[Found] = []
    for case_id, (images, label) in zip(names, entries, strict=True):
        found.append((case_id, images, [label] if label else []))
    a_file_a_channel = any(len(images) > 1 for images, _ in entries)
    return "nnU-Net's layout, a file a channel" if a_file_a_channel else "MSD's layout, 4D files", found


def _refuse_missing(entries: Sequence[tuple[Images, Path | None]], name: str) -> None:
    """Refuse a dataset.json that lists labelled cases whose files are not there."""
    missing = []
    for images, label in entries:
        if label:
            missing += [path for path in (*images, label) if path and not path.is_file()]
    if missing:
        raise CaseError(
            f"{name}: {len(missing)} of the files listed are missing, the first is {display_path(missing[0])}. Copy them "
            "again, or correct dataset.json."
        )


def _borrow_document(folder: Path) -> dict[str, Any]:
    """What the dataset.json above a folder of nnU-Net's files, such as imagesTs, says of their channels and labels."""
    document = load_document(folder.parent)
    if document is None:
        raise CaseError(
            f"{display_path(folder)}: found files numbered _0000 and so on, expected a dataset.json here or in the folder "
            "above that says which channel each number is. Copy it there."
        )
    return {key: document[key] for key in ("modality", "channel_names", "labels", "file_ending") if key in document}


def _name_entry(images: Images, label: Path | None) -> str:
    """Name a case of a dataset.json: after its 4D file or, where there are several, its label."""
    if len(images) == 1:
        return stem_of(_first(images))
    return stem_of(label) if label else re.sub(r"_\d{4}$", "", stem_of(_first(images)))


def _first(images: Images) -> Path:
    return next(path for path in images if path)


def _read_entries(folder: Path, document: Mapping[str, Any], name: str) -> list[tuple[list[Path], Path | None]]:
    """Files as listed under `training` and `test` (MSD, nnU-Net v1), under `dataset`, or as they lie there (v2)."""
    try:
        if "training" in document:
            listed = _list_training(document)
        elif "dataset" in document:
            listed = [(entry["images"], entry.get("label")) for entry in document["dataset"].values()]
        else:
            listed = _list_numbered(folder, str(document.get("file_ending", ".nii.gz")))
        entries: list[tuple[list[Path], Path | None]] = []
        for images, label in listed:
            paths = [images] if isinstance(images, str) else images
            found = [find_file(folder / path) for path in paths]
            entries.append((found, find_file(folder / label) if label else None))
        return entries
    except (KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"{name}: cannot be read ({error!r}). Expected MSD's keys, with image and label.") from error


def _list_training(document: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Image and label of each case under `training`, then the images under `test`, which have no label."""
    listed = [(entry["image"], entry["label"]) for entry in document["training"]]
    for entry in document.get("test", ()):
        image = entry["image"] if isinstance(entry, Mapping) else entry
        listed.append((image, None))
    return listed


def _list_numbered(folder: Path, ending: str) -> list[tuple[Any, Any]]:
    """Image and label of each case of nnU-Net v2, by the names of files; an image without the number of its channel."""
    listed: list[tuple[Any, Any]] = []
    for path in volumes_of(folder / "labelsTr"):
        listed.append((f"imagesTr/{stem_of(path)}{ending}", f"labelsTr/{path.name}"))
    labelled = {image for image, _ in listed}
    number = re.compile(rf"_000[0-3]{re.escape(ending)}$")  # any of them: the first may be missing
    unlabelled: dict[str, None] = {}  # in the order in which they are found
    for place in ("imagesTr", "imagesTs", "."):
        for path in volumes_of(folder / place):
            image = number.sub(ending, path.relative_to(folder).as_posix())
            if number.search(path.name) and image not in labelled:
                unlabelled[image] = None
    return listed + [(image, None) for image in unlabelled]


def _find_images(images: Sequence[Path], channels: Sequence[str], name: str) -> Images:
    """One 4D file, or the files of nnU-Net in the order of `CHANNELS`."""
    if len(images) == 1:
        stem = stem_of(images[0])
        ending = images[0].name.removeprefix(stem)
        split = [find_file(images[0].with_name(f"{stem}_{index:04d}{ending}")) for index in range(len(channels))]
        if not any(path.is_file() for path in split):
            if channels != list(CHANNELS) and images[0].is_file():
                raise LabelError(
                    f"{name}: found channels {channels} in 4D files, expected {list(CHANNELS)} in this order. Reorder the "
                    "channels of the images and correct the names, or give a file for each."
                )
            return (images[0],)
        if images[0].is_file():
            raise CaseError(
                f"{display_path(images[0])}: found a 4D file and {split[0].name} beside it, expected one or the other: which "
                "of them are the scans? Move the others elsewhere."
            )
        numbered = {channel: path for channel, path in zip(channels, split, strict=True) if path.is_file()}
        return tuple(map(numbered.get, CHANNELS))
    said = [channel_of(stem_of(path)) for path in images]
    if len(images) != len(channels) or (None not in said and said != list(channels)):
        raise CaseError(
            f"{name}: found the files {[path.name for path in images]} of a case, expected one per channel, in the order "
            f"{list(channels)} that it gives itself. Correct it."
        )
    return tuple(map(dict(zip(channels, images, strict=True)).get, CHANNELS))


def _tell_apart(paths: Sequence[Path], folder: Path) -> list[str]:
    """Make ids from what differs among paths: `p1` and `p2` of `p1/image.nii.gz` and `p2/image.nii.gz`."""
    parts = []
    for path in paths:
        start = folder if path.is_relative_to(folder) else path.anchor  # it may be on another drive
        parts.append((*path.relative_to(start).parent.parts, stem_of(path)))
    if len({len(part) for part in parts}) > 1:
        return ["_".join(part) for part in parts]
    differs = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    names = []
    for part in parts:
        kept = [word for word, differ in zip(part, differs, strict=True) if differ]
        names.append("_".join(kept))
    return names
