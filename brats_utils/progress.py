"""One progress bar for notebooks, terminals and headless runs."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


def bars_enabled() -> bool:
    """Tell whether bars are wanted: `BRATS_PROGRESS=0` turns all of them off.

    `TQDM_DISABLE` does nothing for `tqdm.auto`, and a bar that is redrawn a thousand times fills
    the log of a headless run.
    """
    return os.environ.get("BRATS_PROGRESS") != "0"


def progress(items: Iterable[Item], title: str, *, enabled: bool = True, total: int | None = None) -> Iterable[Item]:
    """Show a bar while iterating, if bars are enabled.

    Args:
        items: what to iterate over.
        title: shown before the bar.
        enabled: False for none here.
        total: number of items, where `items` cannot tell.
    """
    return tqdm(items, desc=title, total=total, disable=not (enabled and bars_enabled()), leave=False)
