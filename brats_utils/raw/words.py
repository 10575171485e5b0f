"""The words of file names and of DICOM headers that say which channel a scan is."""

import re
from collections.abc import Mapping

OTHER = (
    r"\bloc(ali[sz]er)?\b|scout|survey|topogram|\bcal|dwi|dti|diff|\badc\b|trace|ep2d|\bfa\b|swi|swan|t2\W?\*|t2star|hemo|"
    r"perf|\bdsc\b|\bdce\b|cb[vf]\b|\bmtt\b|asl\b|\bmra\b|\btof\b|\bmrs\b|\bcsi\b|spectro|field.?map|bold|fmri|\bmip\b|phase|"
    r"subtract|\bsub\b|mask|hd.?bet|\b(seg|dseg|label|roi)\b"
)
"""What no channel is: localisers, diffusion, susceptibility, perfusion, vessels, spectra, subtractions, masks."""

T1 = r"(^|[^a-z])t1|mp.?rage|bravo|spgr|tfl|vibe"
T2 = r"(^|[^a-z])t2"
DARK_FLUID = r"flair|\bfla\b|dark.?fl|tirm"
GIVEN = r"\+ ?(c|gd|gad|km)\b|\bc\+|gad|\bgd|post|contrast|\bce\b|\bkm\b|t1(c|ce|gd)\b"
NOT_GIVEN = r"\bpre\b(?!.?op)|pre.?(con|gad|gd|km)|without|\bw/?o\b|\bnon?.?(con|gad|gd|enh)|nativ|unenh"
NO_AGENT = r"|none|no|n/?a|0|-|without.*|no contrast"
"""Words of vendors and protocols. Chosen by judgement, not from a list:
Siemens calls FLAIR `dark-fluid` or `tirm`, and contrast agent is `KM` in German."""

SHORT_ECHO_MS, LONG_ECHO_MS, LONG_REPETITION_MS = 40.0, 60.0, 1800.0
SHORT_REPETITION_MS = 2600.0
FLUID_INVERSION_MS = 1500.0
"""T1w has a short echo and a short repetition, T2w both long, PDw a short echo and a long repetition; FLAIR is T2w after an
inversion at whose end fluid gives no signal, 1.6 to 2.8 s later. Usual values at 1.5 and 3 T, by judgement."""

GRADIENT_ECHO_MS = 12.0
"""A gradient echo as long as this shows susceptibility (T2*), not T1."""


def name_by_words(text: str, words: Mapping[str, str]) -> str | None:
    """Tell which of `labels.CHANNELS` a scan is; None where that is unclear, or it is none of them.

    Args:
        text: a description for people, or the name of a file.
        words: of DICOM, see `dicom.WORDS`; times are in ms.
    """
    text = re.sub(r"[_\s]+", " ", text.lower())
    if re.search(OTHER, text) or "LOCALIZER" in words.get("ImageType", "").upper():
        return None
    said, measured = _weighting_by_text(text), _weighting_by_times(words)
    if said and measured and said != measured:
        return None  # a contradiction is for a person
    weighting = said or measured
    if weighting == "T1w":
        return _tell_contrast(text, words.get("ContrastBolusAgent", "").strip().lower())
    return weighting if weighting in ("FLAIR", "T2w") else None


def _weighting_by_text(text: str) -> str | None:
    """FLAIR, T1w or T2w; GE has a `T1 FLAIR`, which is T1w."""
    if re.search(T1, text):
        return None if re.search(T2, text) else "T1w"
    if re.search(DARK_FLUID, text):
        return "FLAIR"
    return "T2w" if re.search(T2, text) else None


def _weighting_by_times(words: Mapping[str, str]) -> str | None:
    """FLAIR, T1w, T2w, or what else the times of echo, repetition and inversion make."""
    echo, repetition = _number(words, "EchoTime"), _number(words, "RepetitionTime")
    inversion = _number(words, "InversionTime") or 0
    if not echo or not repetition:
        return None
    kind = words.get("ScanningSequence", "").upper()
    if "EP" in kind:
        return "echo planar"
    if "GR" in kind and echo >= GRADIENT_ECHO_MS:
        return "T2*w"
    if echo >= LONG_ECHO_MS and repetition >= LONG_REPETITION_MS:
        return "FLAIR" if inversion >= FLUID_INVERSION_MS else "T2w"
    if echo < SHORT_ECHO_MS:
        return "T1w" if repetition < SHORT_REPETITION_MS or 0 < inversion < FLUID_INVERSION_MS else "PDw"
    return None


def _tell_contrast(text: str, agent: str) -> str | None:
    """T1gd or T1w: by the description, else by whether a contrast agent is named; None if both disagree."""
    named = not re.fullmatch(NO_AGENT, agent)
    if re.search(NOT_GIVEN, text):
        return None if named else "T1w"
    return "T1gd" if named or re.search(GIVEN, text) else "T1w"


def _number(words: Mapping[str, str], name: str) -> float | None:
    try:
        return float(words[name])
    except (KeyError, ValueError):
        return None
