"""All cases of a data set, read once before anything long begins: which cannot be used, and which need a look."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

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
    known: dict[str, list[str]] = {}
    with suppress(OSError, ValueError):  # a file that is missing or damaged has nothing to say
        known = json.loads(remembered.read_text(encoding="utf-8")) if remembered else {}
    keys = [f"{case.case_id} {case.label_schema} {stamp_files(case)}{' incomplete' * incomplete}" for case in cases]

    def check(case: Case, key: str) -> list[str] | ValueError:
        try:
            return known[key] if key in known else list(read_case(case, incomplete=incomplete).warnings)
        except (CaseError, LabelError) as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        found = list(tqdm(threads.map(check, cases, keys), desc="Check cases", total=len(cases)))
    bad = [(case.case_id, error) for case, error in zip(cases, found, strict=True) if isinstance(error, ValueError)]
    if remembered:
        good = {key: texts for key, texts in zip(keys, found, strict=True) if isinstance(texts, list)}
        write_text(remembered, json.dumps(good, indent=1))
    if bad:
        others = f" Nor can these be used: {', '.join(case_id for case_id, _ in bad[1:])}." if len(bad) > 1 else ""
        raise type(bad[0][1])(f"{bad[0][1]}{others}")
    odd = {case.case_id: texts for case, texts in zip(cases, found, strict=True) if isinstance(texts, list) and texts}
    if odd:
        say(f"Warnings on {len(odd)} of {len(cases)} cases. They are used all the same; look at them.")
        for case_id, texts in list(odd.items())[:MAX_LISTED]:
            say(f"- {case_id}: {' '.join(texts)}")
    if len(odd) > MAX_LISTED:
        say(f"- and {len(odd) - MAX_LISTED} more: {', '.join(list(odd)[MAX_LISTED:])}")
