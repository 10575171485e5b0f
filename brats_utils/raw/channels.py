"""Which raw scan is which channel: by the file's name, or by what DICOM says of how it was taken."""

import re
from collections.abc import Sequence
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.cases.dataset_json import channel_of
from brats_utils.cases.folders import stem_of
from brats_utils.labels import CHANNELS, FILE_NAMES
from brats_utils.paths import display_path, say
from brats_utils.raw.series import Series, list_series
from brats_utils.raw.words import OTHER, name_by_words


def name_channel(series: Series) -> str | None:
    """Tell which of `CHANNELS` a scan is; None where that is unclear, or it is none of them."""
    if series.files:
        told = series.words.get("SeriesDescription") or series.words.get("ProtocolName", "")
        return name_by_words(told, series.words)
    stem = stem_of(series.path)
    if re.search(OTHER, stem.lower().replace("_", " ")):
        return None
    return channel_of(stem) or name_by_words(stem, {})


def choose_series(path: Path, channel: str) -> Series:
    """The scan that an option names: a NIfTI file, a folder of one DICOM series, or the one series of many that fits.

    Raises:
        CaseError: see `list_series`; or several fit, or none of several.
    """
    found = list_series(path)
    whole = [series for series in found if series.is_whole] or found
    fitting = [series for series in whole if name_channel(series) == channel]
    if len(whole) == 1:
        known = name_channel(whole[0])
        if whole[0].files and known not in (None, channel):
            say(f"warning: you call it {channel}, and the DICOM header says {known}: {describe(whole)}")
        fitting = whole
    if len(fitting) != 1:
        raise CaseError(
            f"{display_path(path)}: found {len(found)} scans, {len(fitting)} of which look like {channel}, expected one:\n"
            f"{describe(found)}\nName the folder, or the file, of the one you mean with --{FILE_NAMES[channel]}."
        )
    if len(found) > 1:
        say(f"{channel}: {fitting[0].name}, of {len(found)} scans in {display_path(path)}.")
    return fitting[0]


def choose_channels(folder: Path) -> dict[str, Series]:
    """Find the four scans of one patient in a folder and its sub-folders, and say which they are; one may be missing.

    Raises:
        CaseError: see `list_series`; or a channel has several scans, or more than one has none.
    """
    found = list_series(folder)
    by_channel = {
        channel: [one for one in found if one.is_whole and name_channel(one) == channel] for channel in CHANNELS
    }
    several = [channel for channel, fitting in by_channel.items() if len(fitting) > 1]
    missing = [channel for channel, fitting in by_channel.items() if not fitting]
    if several or len(missing) > 1:
        trouble = [f"several scans that look like {channel}" for channel in several]
        trouble += [f"none that looks like {channel}" for channel in missing]
        options = ", ".join(f"--{FILE_NAMES[channel]}" for channel in (several + missing))
        raise CaseError(
            f"{display_path(folder)}: found {', '.join(trouble)}, expected one scan for each of {', '.join(CHANNELS)}, of which "
            f"one may be missing:\n{describe(found)}\nName the scans yourself ({options}), or move the others elsewhere."
        )
    chosen = {channel: fitting[0] for channel, fitting in by_channel.items() if fitting}
    for channel, series in chosen.items():
        say(f"{channel}: {series.name}")
    others = [series.name for series in found if series not in chosen.values()]
    if others:
        say(f"Not used: {', '.join(others)}")
    return chosen


def describe(found: Sequence[Series]) -> str:
    """List scans for a person to choose from: where, what they are called, and what they look like."""
    lines = []
    for series in found:
        size = f", {len(series.files)} files" if series.files else ""
        channel = name_channel(series) or "unclear, or none of the four"
        lines.append(f"- {display_path(series.path)}: {series.name}{size}: {channel}")
    return "\n".join(lines)
