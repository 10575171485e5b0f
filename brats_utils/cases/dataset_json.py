"""What a `dataset.json` says of channels and labels, in the words of MSD and of nnU-Net v1 and v2.

A `document` is its content, `source` what to call the file in an error.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_utils.cases.case import CaseError
from brats_utils.labels import CHANNELS, SCHEMAS, SCORED, LabelError, LabelSchema
from brats_utils.paths import display_path

CHANNEL_WORDS = {
    "FLAIR": ("flair", "t2f", "t2flair", "fl"),
    "T1w": ("t1", "t1w", "t1n", "t1pre"),
    "T1gd": ("t1gd", "t1ce", "t1c", "t1wce", "t1post", "ct1"),
    "T2w": ("t2", "t2w"),
}
"""What the channels are called. Source: the releases of MSD, BraTS 2015 to 2025, UCSF-PDGM, UTSW-Glioma (`fl`), LUMIERE
(`ct1`), and nnU-Net's examples."""

CONTRAST_WORDS = ("ce", "gd", "gadolinium", "contrast", "post")
"""Beside a T1w, they say that it was taken after contrast agent. Source: the entity `ce` of BIDS."""

ENTITY = r"(^|_)(?!ce-)[a-z]+-[a-z0-9]+(?=_)"
"""Entities of BIDS other than `ce`: `ses-post` says nothing of contrast agent."""

DIFFERENCE = rf"(^|_)({'|'.join(CHANNEL_WORDS['T1gd'])})-({'|'.join(CHANNEL_WORDS['T1w'])})$"
"""One scan less another. Source: Fields 2024 (UCSF-ALPTDG), doi 10.1148/ryai.230182."""


def channel_of(name: str) -> str | None:
    """Tell which channel a file or an entry of dataset.json is, by the last word of its name: `x_t1ce`, `ce-gd_T1w`.

    A difference of two scans, `x_t1ce-t1` in UCSF-ALPTDG, is none of them.
    """
    name = name.lower()
    if re.search(DIFFERENCE, name):
        return None
    words = re.findall("[a-z0-9]+", re.sub(ENTITY, "", name))
    if not words:
        return None
    last = words.pop()
    with_contrast = bool(re.search(r"(^|_)ce-", name))
    if words and words[-1] in CONTRAST_WORDS:  # ce T1w
        with_contrast = True
    while last in CONTRAST_WORDS and words:  # T1 Gd, T1w post-contrast
        last = words.pop()
        with_contrast = True
    found = next((channel for channel, known in CHANNEL_WORDS.items() if last in known), None)
    return "T1gd" if found == "T1w" and with_contrast else found


def without_channel(name: str) -> str:
    """What stands before the name of the channel: the patient of A_t1ce, A_T1_Gd and A_ce-gd_T1w."""
    known = set(CONTRAST_WORDS)
    for words in CHANNEL_WORDS.values():
        known |= set(words)
    name = re.sub("(^|_)ce-[a-zA-Z0-9]+", "", name)
    while True:
        last_word = re.search(r"[^a-zA-Z0-9]*([a-zA-Z0-9]+)$", name)
        if last_word is None or last_word[1].lower() not in known:
            return name
        name = name[: last_word.start()]


def load_document(folder: Path) -> dict[str, Any] | None:
    """Read the dataset.json of a folder; None without.

    Raises:
        CaseError: it is no JSON object.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(document, dict):
            raise ValueError(type(document).__name__)
    except ValueError as error:
        raise CaseError(
            f"{display_path(path)}: cannot be read ({error}). Expected MSD's or nnU-Net's keys; copy it again."
        ) from error
    return document


def read_channels(document: Mapping[str, object], *, source: str) -> list[str]:
    """Read the order of the channels, as `CHANNELS`, from `modality` (MSD, nnU-Net v1) or `channel_names` (v2).

    Raises:
        LabelError: there are no such names, or they are not these four, or three of them.
    """
    key = "channel_names" if "channel_names" in document else "modality"
    names = _read_mapping(document, key, source)
    listed = [str(names[index]) for index in sorted(names)]
    found = [channel_of(name) for name in listed]
    if len(found) < len(CHANNELS) - 1 or len({*found} & {*CHANNELS}) < len(found):
        raise LabelError(
            f"{source}: found channels {listed}, expected {list(CHANNELS)}, in any order where each is a file of its own; "
            f"one may be missing there. Correct {key!r}."
        )
    return [str(channel) for channel in found]


def read_label_schema(document: Mapping[str, object], schema: LabelSchema | None, *, source: str) -> LabelSchema:
    """Read which integer stands for what from `labels`: MSD's (value: name) or nnU-Net v2's (name or region: values).

    `schema` is the label convention that the user has named; None to go by the document.

    Raises:
        LabelError: there are no such names, they describe no known schema, or another than the user's.
    """
    names = _read_mapping(document, "labels", source)
    tissues = {value: _tissue_of(str(name)) for value, name in names.items() if value != 0}
    fits = [known for known in SCORED.values() if tissues == _tissues(known)]
    if schema in fits or (schema is None and fits):
        return schema or fits[0]
    expected = f"{schema.tissues} (schema {schema.name!r})" if schema else f"one of {', '.join(SCHEMAS)}"
    hint = "It describes no known schema; see the table in docs/inference.md."
    if fits:
        hint = f"It describes {fits[0].name}: set label_schema to it, or --schema at the command line."
    raise LabelError(f"{source}: found labels {names}, expected {expected}. {hint}")


def _read_mapping(document: Mapping[str, object], key: str, source: str) -> dict[int, object]:
    """Read `{"0": "name"}`, `{"name": 0}` or regions, `{"whole tumor": [1, 2, 3]}`, under `key`: names by number."""
    entry = document.get(key)
    try:
        assert isinstance(entry, Mapping)
        if any(isinstance(value, list) for value in entry.values()):
            return _split_regions(entry)
        names_are_keys = any(not str(name).isdigit() for name in entry)
        if names_are_keys:
            return {int(value): name for name, value in entry.items()}
        return {int(value): name for value, name in entry.items()}
    except (AssertionError, ValueError, TypeError):
        raise LabelError(
            f'{source}: found {entry!r} under {key!r}, expected a mapping such as {{"0": "name"}}.'
        ) from None


def _split_regions(entry: Mapping[str, Any]) -> dict[int, object]:
    """Tissues of nested regions: what the whole tumour has and the core has not is edema."""
    values: dict[str, set[int]] = {}
    for name, given in entry.items():
        values[str(name).lower()] = {given} if isinstance(given, int) else {int(value) for value in given}

    def find(sign: str) -> set[int]:
        """Find the values of the first region whose name has a sign."""
        return next((found for name, found in values.items() if re.search(sign, name)), set())

    whole = find(r"whole|\bwt\b")
    core = find(r"core|\btc\b")
    enhancing = find(r"enhanc|\bet\b")
    apart: dict[str, set[int]] = {}
    for name, found in values.items():
        tissue = _tissue_of(name)
        if tissue in ("cyst", "cavity"):
            apart[tissue] = found
    parts = {
        "edema": whole - core - apart.get("cavity", set()),
        "necrotic": core - enhancing - apart.get("cyst", set()),
        "enhancing": enhancing,
        **apart,
    }
    names: dict[int, object] = {0: "background"}
    for tissue, found in parts.items():
        names |= dict.fromkeys(found, tissue)
    return names


def _tissues(schema: LabelSchema) -> dict[int, str]:
    """Name the tissue of each value of a schema, in the words of `_tissue_of`."""
    if not all(schema.known):
        return {schema.edema: "whole"}
    tissues = {}
    for field in ("edema", "necrotic", "enhancing", "cyst", "cavity"):
        value = getattr(schema, field)
        if value is not None:
            tissues[value] = field
    if schema.solid is not None:
        tissues[schema.solid] = "necrotic"
    return tissues


def _tissue_of(name: str) -> str:
    """Classify the free text of dataset.json, e.g. `non-enhancing tumor` or `SNFH`, as a tissue."""
    signs = {
        "edema": r"o?edema|flair|\b(ed|snfh)\b",  # surrounding non-enhancing FLAIR hyperintensity
        "cyst": r"cyst|\bcc\b",
        "cavity": r"cavity|resection|\brc\b",
        "necrotic": r"non.?enhanc|necro|\b(ncr|net|netc)\b",
        "enhancing": r"enhanc|\bet\b",
        "whole": r"whole|\bwt\b",
    }
    text = name.lower().replace("_", " ")
    return next((tissue for tissue, sign in signs.items() if re.search(sign, text)), f"unknown ({name})")
