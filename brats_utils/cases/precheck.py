"""All cases of a data set, read once before anything long begins: which cannot be used, and which need a look."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from brats_utils.cases.case import Case, CaseError, stamp_files
from brats_utils.cases.reader import read_case
from brats_utils.labels import LabelError
from brats_utils.paths import say, write_text

MAX_LISTED = 5  # cases whose warnings are printed


def check_cases(cases: Sequence[Case], *, remembered: Path | None = None, incomplete: bool = False) -> None:
    """Read every case once, so that what cannot be used is refused before anything long begins, and say the warnings.

    The file `remembered` keeps what was found; a case whose files have not changed since is not read again. For
    `incomplete` see `read_case`.

    Raises:
        CaseError, LabelError: see `read_case`; of several bad cases the first, and the names of the others.
    """
    keys = [f"{case.case_id} {case.label_schema} {stamp_files(case)}{' incomplete' * incomplete}" for case in cases]
    known = _recall(remembered)

    def check(case: Case, key: str) -> list[str] | ValueError:
        if key in known:
            return known[key]
        try:
            return list(read_case(case, incomplete=incomplete).warnings)
        except (CaseError, LabelError) as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(tqdm(threads.map(check, cases, keys), desc="Check cases", total=len(cases)))
    refused: dict[str, ValueError] = {}
    warned: dict[str, list[str]] = {}
    good: dict[str, list[str]] = {}
    for case, key, outcome in zip(cases, keys, outcomes, strict=True):
        if isinstance(outcome, ValueError):
            refused[case.case_id] = outcome
            continue
        good[key] = outcome
        if outcome:
            warned[case.case_id] = outcome
    if remembered:
        write_text(remembered, json.dumps(good, indent=1))
    if refused:
        _refuse(refused)
    if warned:
        _say_warnings(warned, total=len(cases))


def _recall(remembered: Path | None) -> dict[str, list[str]]:
    """Read the warnings by case of an earlier check; nothing where there is none, or its file is damaged."""
    if remembered is None:
        return {}
    try:
        known: dict[str, list[str]] = json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def _refuse(refused: dict[str, ValueError]) -> NoReturn:
    """Raise the error of the first case, with the names of the others."""
    first, *others = refused
    error = refused[first]
    also = f" Nor can these be used: {', '.join(others)}." if others else ""
    raise type(error)(f"{error}{also}")


def _say_warnings(warned: dict[str, list[str]], *, total: int) -> None:
    """Print the warnings of the first cases, and the names of the others."""
    say(f"Warnings on {len(warned)} of {total} cases. They are used all the same; look at them.")
    case_ids = list(warned)
    for case_id in case_ids[:MAX_LISTED]:
        say(f"- {case_id}: {' '.join(warned[case_id])}")
    if len(case_ids) > MAX_LISTED:
        say(f"- and {len(case_ids) - MAX_LISTED} more: {', '.join(case_ids[MAX_LISTED:])}")
