"""Cases on disk, and their split into train, val and test."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_utils.cases.download import MSD_TASK, download_msd
from brats_utils.config import name_phantom
from brats_utils.labels import LabelSchema, check_dataset_json
from brats_utils.paths import display_path, write_text
from brats_utils.phantom.dataset import generate_dataset

PARTS = ("train", "val", "test")


class DataError(ValueError):
    """A data folder or split that is missing, incomplete or contradictory."""


@dataclass(frozen=True)
class Case:
    """One labelled case on disk."""

    case_id: str
    image: Path
    label: Path

    @property
    def files(self) -> dict[str, str]:
        """What a MONAI dictionary transform takes."""
        return {"case_id": self.case_id, "image": str(self.image), "label": str(self.label)}


def prepare_dataset(dataset_dir: Path, *, spacing_mm: float, num_cases: int, seed: int) -> Path:
    """Make sure that the data set is there: use it, download it or generate it, by its name.

    Args:
        dataset_dir: a folder in the layout of MSD; if missing, one called `Task01_BrainTumour` is
            downloaded and one called `phantom…` is generated.
        spacing_mm: voxel size of a generated phantom.
        num_cases: labelled cases of a generated phantom.
        seed: of a generated phantom.

    Returns:
        `dataset_dir`.

    Raises:
        DataError: if the folder is missing and its name says nothing about how to make it.
    """
    own = [name_phantom(text, num_cases, seed) for text in (f"{spacing_mm}", f"{spacing_mm:g}")]
    if (dataset_dir / "dataset.json").is_file() and dataset_dir.name not in own:
        return dataset_dir
    if dataset_dir.name.startswith("phantom"):  # a preset's own of an older version is refused, not reused
        return generate_dataset(dataset_dir, num_training=num_cases, spacing_mm=spacing_mm, seed=seed)
    if dataset_dir.name == MSD_TASK:
        return download_msd(dataset_dir)
    raise DataError(
        f"{display_path(dataset_dir)}: found no dataset.json, expected a folder in the layout of MSD (dataset.json, "
        "imagesTr, labelsTr). Set data to such a folder, or to 'phantom' or 'msd'."
    )


def load_cases(dataset_dir: Path, *, schema: LabelSchema) -> list[Case]:
    """List the labelled cases of a folder in the layout of MSD, sorted by id.

    Args:
        dataset_dir: folder with dataset.json, imagesTr and labelsTr.
        schema: the numbering that the label files must follow.

    Raises:
        DataError: no or unreadable dataset.json, no cases, an id listed twice or a missing file.
        LabelError: channels or labels of dataset.json contradict the schema.
    """
    document_path = dataset_dir / "dataset.json"
    name = display_path(document_path)
    if not document_path.is_file():
        raise DataError(
            f"{name}: not found. Notebook 01_setup makes it: run that first, with the same data and preset."
        )
    try:
        document: dict[str, Any] = json.loads(document_path.read_text(encoding="utf-8"))
        entries = [(dataset_dir / entry["image"], dataset_dir / entry["label"]) for entry in document["training"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: cannot be read ({error!r}). Expected MSD's keys, with image and label.") from error
    check_dataset_json(document, schema, source=name)
    cases = [Case(image.name.removesuffix(".gz").removesuffix(".nii"), image, label) for image, label in entries]
    missing = [path for case in cases for path in (case.image, case.label) if not path.is_file()]
    if missing:
        raise DataError(
            f"{name}: {len(missing)} of {2 * len(cases)} files listed are missing, the first is "
            f"{display_path(missing[0])}. Delete the folder and make it again."
        )
    if not cases:
        raise DataError(f"{name}: found no labelled case under 'training', expected at least one.")
    if len({case.case_id for case in cases}) < len(cases):
        raise DataError(f"{name}: a case is listed twice under 'training'; list each once.")
    return sorted(cases, key=lambda case: case.case_id)


def split_cases(cases: Sequence[Case], split_path: Path, *, seed: int) -> dict[str, list[Case]]:
    """Divide cases into train, val and test; written to a file once, read from it ever after.

    A fifth goes to test and an eighth to val, at least one each where there are three cases or
    more; with fewer, all are for training or looking at.

    Args:
        cases: the cases of one data set.
        split_path: the manifest: seed, case ids by part, size and SHA-256 of each file.
        seed: of the shuffle.

    Returns:
        The cases of each part of `PARTS`, sorted by id.

    Raises:
        DataError: if an existing manifest is damaged, names a case twice, or was made for other files.
    """
    if not split_path.exists():
        _write_split(cases, split_path, seed=seed)
    name = display_path(split_path)
    try:
        manifest = json.loads(split_path.read_text(encoding="utf-8"))
        parts = {part: list(manifest["parts"][part]) for part in PARTS}
        files = manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: damaged ({error!r}). Delete it to split anew.") from error
    listed = [case_id for part in PARTS for case_id in parts[part]]
    twice = sorted({case_id for case_id in listed if listed.count(case_id) > 1})
    if twice:
        raise DataError(
            f"{name}: cases {twice} are listed twice. A case in two parts leaks; delete the file to split anew."
        )
    by_id = {case.case_id: case for case in cases}
    if set(listed) != set(by_id) or any(_fingerprint(by_id[i]) != files.get(i) for i in listed):
        raise DataError(
            f"{name}: was made for other cases or files than those in {display_path(cases[0].image.parent.parent)}. "
            "Choose another output_dir for this data, or delete the file to split anew."
        )
    return {part: [by_id[case_id] for case_id in parts[part]] for part in PARTS}


def find_test_cases(cases: Sequence[Case], split_path: Path, *, seed: int) -> list[Case]:
    """Take the test cases of `split_cases`, where there must be some.

    Raises:
        DataError: if there are none, or see `split_cases`.
    """
    found = split_cases(cases, split_path, seed=seed)["test"]
    if not found:
        raise DataError(
            f"{display_path(split_path)}: found no test case among {len(cases)}, expected one at least. Give data with "
            "three labelled cases or more, and another output_dir."
        )
    return found


def _write_split(cases: Sequence[Case], split_path: Path, *, seed: int) -> None:
    ids = [case.case_id for case in cases]
    random.Random(seed).shuffle(ids)
    num_test, num_val = (max(1, len(ids) // 5), max(1, len(ids) // 8)) if len(ids) >= 3 else (0, 0)
    bounds = {"test": ids[:num_test], "val": ids[num_test : num_test + num_val], "train": ids[num_test + num_val :]}
    manifest = {
        "seed": seed,
        "parts": {part: sorted(bounds[part]) for part in PARTS},
        "files": {case.case_id: _fingerprint(case) for case in cases},
    }
    write_text(split_path, json.dumps(manifest, indent=1))


def _fingerprint(case: Case) -> dict[str, dict[str, str | int]]:
    """Size and checksum of both files."""
    return {
        key: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for key, path in (("image", case.image), ("label", case.label))
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
