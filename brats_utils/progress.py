"""One progress bar for notebooks, terminals and headless runs."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], title: str, *, enabled: bool = True, total: int | None = None) -> Iterable[Item]:
    """Show a bar while iterating, unless told not to.

    `BRATS_PROGRESS=0` turns every bar off: `TQDM_DISABLE` does nothing for `tqdm.auto`, and a bar
    that is redrawn a thousand times fills the log of a headless run.

    Args:
        items: what to iterate over.
        title: shown before the bar.
        enabled: False for no bar.
        total: number of items, where `items` cannot tell.
    """
    disable = not enabled or os.environ.get("BRATS_PROGRESS") == "0"
    return tqdm(items, desc=title, total=total, disable=disable, leave=False)
