"""The data set of a run, and its split into train, val and test."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.download import MSD_TASK, download_msd
from brats_utils.config import name_phantom
from brats_utils.labels import CHANNELS, refuse_unknown_regions
from brats_utils.paths import display_path, write_text
from brats_utils.phantom.dataset import generate_dataset

PARTS = ("train", "val", "test")
NUM_FOLDS = 5
"""Of a cross-validation. Source: the five of nnU-Net (Isensee 2021, arXiv 1904.08128)."""


def prepare_dataset(dataset_dir: Path, *, spacing_mm: float, num_cases: int, seed: int) -> Path:
    """Make sure that the data set is there: use it, download it or generate it, by its name.

    A folder may be in any of `layouts.LAYOUTS`. If it is missing, one called `Task01_BrainTumour` is downloaded and one
    called `phantom…` is generated: `num_cases` labelled cases with voxels of `spacing_mm`.

    Raises:
        CaseError: if the folder is missing and its name says nothing about how to make it.
    """
    own = [name_phantom(text, num_cases, seed) for text in (f"{spacing_mm}", f"{spacing_mm:g}")]
    exists = dataset_dir.is_dir() and any(dataset_dir.iterdir())
    if dataset_dir.name in own or (dataset_dir.name.startswith("phantom") and not exists):
        return generate_dataset(dataset_dir, num_training=num_cases, spacing_mm=spacing_mm, seed=seed)
    if exists:
        return dataset_dir
    if dataset_dir.name == MSD_TASK:
        return download_msd(dataset_dir)
    raise CaseError(
        f"{display_path(dataset_dir)}: not found, expected a folder of cases. Set data to one, or to 'phantom' or 'msd'."
    )


def split_cases(cases: Sequence[Case], split_path: Path, *, seed: int) -> dict[str, list[Case]]:
    """Divide cases into train, val and test, sorted by id; written to a file once, read from it ever after.

    A fifth goes to test and an eighth to val, at least one each where there are three cases or
    more; with fewer, all are for training or looking at. The manifest at `split_path` holds the seed of the shuffle,
    case ids by part and, of all that is not for test, by fold, and size and SHA-256 of each file.

    Raises:
        CaseError: if an existing manifest is damaged, names a case twice, or was made for other files.
        LabelError: if the labels do not tell the three regions apart.
    """
    for schema in {case.label_schema for case in cases if case.label_schema}:
        refuse_unknown_regions(schema, what="Training")
    if not split_path.exists():
        _write_split(cases, split_path, seed=seed)
    name = display_path(split_path)
    try:
        manifest = json.loads(split_path.read_text(encoding="utf-8"))
        parts = {part: list(manifest["parts"][part]) for part in PARTS}
        files = manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CaseError(f"{name}: damaged ({error!r}). Delete it to split anew.") from error
    listed = [case_id for part in PARTS for case_id in parts[part]]
    twice = sorted({case_id for case_id in listed if listed.count(case_id) > 1})
    if twice:
        raise CaseError(
            f"{name}: cases {twice} are listed twice. A case in two parts leaks; delete the file to split anew."
        )
    by_id = {case.case_id: case for case in cases}
    if set(listed) != set(by_id) or any(_fingerprint(by_id[i]) != files.get(i) for i in listed):
        raise CaseError(
            f"{name}: was made for other cases or files than those in {display_path(cases[0].files[0].parent.parent)}. "
            "Choose another output_dir for this data, or delete the file to split anew."
        )
    return {part: [by_id[case_id] for case_id in parts[part]] for part in PARTS}


def read_folds(split_path: Path) -> list[list[str]]:
    """Read the case ids of the five folds from a manifest of `split_cases`; together they are its train and val.

    Raises:
        CaseError: no folds, an empty one, or others than its train and val cases, each in one fold.
    """
    name = display_path(split_path)
    manifest = json.loads(split_path.read_text(encoding="utf-8"))
    folds, parts = manifest.get("folds"), manifest["parts"]
    if folds is None:
        raise CaseError(f"{name}: found no folds, for it is of an earlier version. Delete it to split anew.")
    if sorted(case_id for fold in folds for case_id in fold) != sorted(parts["train"] + parts["val"]):
        raise CaseError(
            f"{name}: found folds that are not its train and val cases, each in one fold. Test cases must not be in any; "
            "delete the file to split anew."
        )
    if not all(folds):
        raise CaseError(
            f"{name}: found {sum(map(len, folds))} cases beside the test part, expected {NUM_FOLDS} or more for as many "
            "folds. Train without --fold, or give more cases."
        )
    return folds


def take_fold(parts: Mapping[str, list[Case]], split_path: Path, *, fold: int) -> dict[str, list[Case]]:
    """Divide anew what is not for test: `fold`, 1 to 5, becomes val and the four others train; test stays as it is.

    Raises:
        CaseError: see `read_folds`.
    """
    held_out = set(read_folds(split_path)[fold - 1])
    pool = sorted(parts["train"] + parts["val"], key=lambda case: case.case_id)
    return {
        "train": [case for case in pool if case.case_id not in held_out],
        "val": [case for case in pool if case.case_id in held_out],
        "test": parts["test"],
    }


def _write_split(cases: Sequence[Case], split_path: Path, *, seed: int) -> None:
    ids = [case.case_id for case in cases]
    random.Random(seed).shuffle(ids)
    num_test = num_val = 0
    if len(ids) >= 3:
        num_test = max(1, len(ids) // 5)
        num_val = max(1, len(ids) // 8)
    bounds = {"test": ids[:num_test], "val": ids[num_test : num_test + num_val], "train": ids[num_test + num_val :]}
    pool = ids[num_test:]
    manifest = {
        "seed": seed,
        "parts": {part: sorted(bounds[part]) for part in PARTS},
        "folds": [sorted(pool[start::NUM_FOLDS]) for start in range(NUM_FOLDS)],
        "files": {case.case_id: _fingerprint(case) for case in cases},
    }
    write_text(split_path, json.dumps(manifest, indent=1))


def _fingerprint(case: Case) -> dict[str, dict[str, str | int]]:
    """Size and checksum of each file."""
    names = ("image",) if len(case.images) == 1 else CHANNELS
    files = zip((*names, "label"), (*case.images, case.label), strict=True)
    return {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files if path}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
