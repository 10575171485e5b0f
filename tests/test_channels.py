"""Which scan is which channel, by the words of protocols and the times of sequences."""

import pytest

from brats_utils.raw.words import name_by_words

TIMES = {
    "T1w": {"EchoTime": "9", "RepetitionTime": "500"},
    "MPRAGE": {"EchoTime": "3", "RepetitionTime": "2300", "InversionTime": "900", "ScanningSequence": "GR\\IR"},
    "T2w": {"EchoTime": "100", "RepetitionTime": "4000"},
    "FLAIR": {"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2400"},
    "PDw": {"EchoTime": "15", "RepetitionTime": "3000"},
    "T2*w": {"EchoTime": "20", "RepetitionTime": "600", "ScanningSequence": "GR"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AX FLAIR", "FLAIR"),
        ("Ax T2 FLAIR FS", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("AX FLAIR POST", "FLAIR"),
        ("AX T1 PRE", "T1w"),
        ("Ax T1 FLAIR", "T1w"),
        ("T1 pre contrast", "T1w"),
        ("SAG T1 W/O", "T1w"),
        ("AX T1 POST", "T1gd"),
        ("T1 SE AX +C", "T1gd"),
        ("t1_mpr_sag_p2_iso_km", "T1gd"),
        ("MPRAGE GAD", "T1gd"),
        ("AX T2 FSE", "T2w"),
        ("t2_space_sag", "T2w"),
        ("3-plane Loc", None),
        ("AX T2* GRE", None),
        ("ep2d_diff_3scan_trace ADC", None),
        ("AX PERFUSION T1 POST", None),
        ("brain", None),
    ],
)
def test_a_description_says_what_it_is(text, expected):
    assert name_by_words(text, {}) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [("T1w", "T1w"), ("MPRAGE", "T1w"), ("T2w", "T2w"), ("FLAIR", "FLAIR"), ("PDw", None), ("T2*w", None)],
)
def test_times_say_what_it_is_where_words_do_not(times, expected):
    assert name_by_words("axial", TIMES[times]) == expected


@pytest.mark.parametrize(("text", "times"), [("AX T2", "PDw"), ("AX FLAIR", "T2w"), ("AX T1", "T2w")])
def test_words_against_times_are_left_to_a_person(text, times):
    assert name_by_words(text, TIMES[times]) is None


def test_contrast_agent_makes_t1gd_and_a_contradiction_is_left_to_a_person():
    given = {"ContrastBolusAgent": "Gadavist"}
    assert name_by_words("AX T1", given) == "T1gd"
    assert name_by_words("AX T1", {"ContrastBolusAgent": "NONE"}) == "T1w"
    assert name_by_words("AX T1 PRE", given) is None
    assert name_by_words("AX T2", given) == "T2w"
