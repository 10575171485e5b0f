"""Which raw scan is which channel: by the file's name, or by what DICOM says of how it was taken."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.cases.dataset_json import channel_of
from brats_utils.cases.folders import stem_of
from brats_utils.labels import CHANNELS
from brats_utils.paths import display_path, say
from brats_utils.raw.series import Series, list_series

OPTIONS = dict(zip(CHANNELS, ("flair", "t1", "t1gd", "t2"), strict=True))
"""What the channels are called in options and in the names of the files that are written."""

OTHER = (
    r"loc(ali[sz]er)?\b|scout|survey|topogram|\bcal|dwi|dti|diff|\badc\b|trac|ep2d|\bfa\b|swi|swan|t2\W?\*|t2star|hemo|"
    r"perf|\bdsc\b|\bdce\b|cb[vf]\b|\bmtt\b|\basl\b|pcasl|\bmra\b|tof|mrs|csi|spectro|field.?map|bold|fmri|\bmip\b|pha?se|"
    r"subtract|\bsub\b"
)
"""Descriptions of what no channel is: localisers, diffusion, susceptibility, perfusion, vessels, spectra, derived images."""

DARK_FLUID = r"flair|dark.?fl|tirm"
T1 = r"(^|[^a-z])t1|mp.?rage|bravo|spgr|tfl|vibe"
T2 = r"(^|[^a-z])t2"
GIVEN = r"\+ ?c\b|c\+|gad|\bgd|[^a-z]gd|post|contrast|(^|[^a-z])ce($|[^a-z])|(^|[^a-z])km($|[^a-z])|t1c"
NOT_GIVEN = r"\bpre|[^a-z]pre|without|w/?o|non.?con|no.?con|nativ|plain|unenh|\bnone?\b"
"""Words of vendors and protocols. Source: descriptions of series in the collections TCGA-LGG, TCGA-GBM, UPENN-GBM and IvyGAP
of The Cancer Imaging Archive; Siemens calls FLAIR `dark-fluid` or `tirm`."""

SHORT_ECHO_MS, LONG_ECHO_MS = 40.0, 60.0
SHORT_REPETITION_MS, LONG_REPETITION_MS = 2600.0, 1800.0
FLUID_INVERSION_MS = 1500.0
"""T1w has a short echo and a short repetition, T2w both long; FLAIR is T2w after an inversion at which fluid gives no signal,
1.8 to 2.8 s at 1.5 and 3 T. Source: Westbrook, MRI in Practice, the tables of parameters."""


def name_channel(series: Series) -> str | None:
    """Tell which of `CHANNELS` a scan is; None where that is unclear, or it is none of them."""
    if not series.files:
        return channel_of(stem_of(series.path))
    words = series.words
    text = f"{words.get('SeriesDescription', '')} {words.get('ProtocolName', '')}".lower().replace("_", " ")
    if re.search(OTHER, text) or "LOCALIZER" in words.get("ImageType", "").upper():
        return None
    said, measured = _weighting_of(text), _weighting_by_times(words)
    if said and measured and said != measured:
        return None  # a contradiction is for a person
    weighting = said or measured
    if weighting != "T1w":
        return weighting
    return _contrast_of(words.get("SeriesDescription", "").lower().replace("_", " "), words)


def _weighting_of(text: str) -> str | None:
    """FLAIR, T1w or T2w by the words of a description; GE has a `T1 FLAIR`, which is T1w."""
    if re.search(T1, text):
        return None if re.search(T2, text) else "T1w"
    if re.search(DARK_FLUID, text):
        return "FLAIR"
    return "T2w" if re.search(T2, text) else None


def _weighting_by_times(words: Mapping[str, str]) -> str | None:
    """The same by the times of echo, repetition and inversion, in ms."""
    echo, repetition, inversion = (_number(words.get(name)) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    if echo is None or repetition is None:
        return None
    if echo >= LONG_ECHO_MS and repetition >= LONG_REPETITION_MS:
        return "FLAIR" if (inversion or 0) >= FLUID_INVERSION_MS else "T2w"
    if echo < SHORT_ECHO_MS and (repetition < SHORT_REPETITION_MS or 0 < (inversion or 0) < FLUID_INVERSION_MS):
        return "T1w"
    return None


def _contrast_of(text: str, words: Mapping[str, str]) -> str | None:
    """Tell T1gd from T1w: by the description, else by whether a contrast agent is named; None if both disagree."""
    agent = words.get("ContrastBolusAgent", "").lower()
    given_tag = bool(agent) and not re.fullmatch(r"no|none|n/?a|0|without.*|-|no contrast", agent)
    before, after = bool(re.search(NOT_GIVEN, text)), bool(re.search(GIVEN, text))
    if before:  # `pre contrast`, `without gad`
        return None if given_tag else "T1w"
    return "T1gd" if after or given_tag else "T1w"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def choose_series(path: Path, channel: str) -> Series:
    """The scan that an option names: a NIfTI file, a folder of one DICOM series, or the one series of many that fits.

    Raises:
        CaseError: see `list_series`; or several fit, or none of several.
    """
    found = list_series(path)
    if len(found) == 1:
        (only,) = found
        known = name_channel(only)
        if only.files and known and known != channel:
            say(f"warning: {channel}: you name {display_path(path)}, and its DICOM header says {known} ({only.name}).")
        return only
    fitting = [series for series in found if name_channel(series) == channel]
    if len(fitting) != 1:
        raise CaseError(
            f"{display_path(path)}: found {len(found)} scans, {len(fitting)} of which look like {channel}, expected one:\n"
            f"{describe(found)}\nName the folder, or the file, of the one you mean with --{OPTIONS[channel]}."
        )
    say(f"{channel}: {fitting[0].name}, of {len(found)} scans in {display_path(path)}.")
    return fitting[0]


def choose_channels(folder: Path) -> dict[str, Series]:
    """Find the four scans of one patient in a folder and its sub-folders, and say which they are; one may be missing.

    Raises:
        CaseError: see `list_series`; or a channel has several scans, or more than one has none.
    """
    found = list_series(folder)
    by_channel = {channel: [one for one in found if name_channel(one) == channel] for channel in CHANNELS}
    several = [channel for channel, fitting in by_channel.items() if len(fitting) > 1]
    missing = [channel for channel, fitting in by_channel.items() if not fitting]
    if several or len(missing) > 1:
        trouble = [f"several scans that look like {channel}" for channel in several]
        trouble += [f"none that looks like {channel}" for channel in missing]
        options = ", ".join(f"--{OPTIONS[channel]}" for channel in (several + missing))
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
        lines.append(f"- {display_path(series.path)}: {series.name}{size}: {name_channel(series) or 'unclear'}")
    return "\n".join(lines)
