"""Every case is read once before a run, what was found is remembered, and what cannot be used is named."""

import json
import os
from dataclasses import replace

import nibabel as nib
import pytest
from scans import turn, write_labelled

from brats_utils.cases import precheck
from brats_utils.cases.case import CaseError
from brats_utils.cases.precheck import check_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2021, LabelError


@pytest.fixture
def case(tmp_path):
    return write_labelled(tmp_path)


@pytest.fixture
def readings(monkeypatch):
    """Ids of the cases that are read from now on."""
    read = []
    monkeypatch.setattr(
        precheck, "read_case", lambda case, **how: (read.append(case.case_id), read_case(case, **how))[1]
    )
    return read


def test_a_checked_case_is_not_read_again_until_one_of_its_files_changes(case, tmp_path, readings):
    cases, memory = [case, replace(case, case_id="two")], tmp_path / "cache/checked.json"
    check_cases(cases, remembered=memory)
    assert sorted(readings) == ["one", "two"]
    check_cases(cases, remembered=memory)
    assert sorted(readings) == ["one", "two"]
    os.utime(case.label, (0, 0))
    check_cases(cases[:1], remembered=memory)
    assert sorted(readings) == ["one", "one", "two"]


def test_a_case_is_checked_again_in_another_label_convention(case, tmp_path, readings):
    check_cases([case], remembered=tmp_path / "checked.json")
    with pytest.raises(LabelError, match=r"found label values \[3\]"):
        check_cases([replace(case, label_schema=BRATS_2021)], remembered=tmp_path / "checked.json")
    assert readings == ["one", "one"]


def test_of_bad_cases_the_first_is_explained_the_others_are_named_and_the_good_are_remembered(case, tmp_path, readings):
    bad = [replace(case, case_id=name, images=(tmp_path / f"{name}.nii.gz",)) for name in ("two", "three", "four")]
    with pytest.raises(CaseError, match=r"two\.nii\.gz: not found.* Nor can these be used: three, four\.$"):
        check_cases([*bad, case], remembered=tmp_path / "checked.json")
    assert len(json.loads((tmp_path / "checked.json").read_text())) == 1
    check_cases([case], remembered=tmp_path / "checked.json")
    assert readings.count("one") == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 3}'])
def test_a_damaged_memory_of_checks_is_made_anew(case, tmp_path, readings, text):
    memory = tmp_path / "checked.json"
    memory.write_text(text)
    check_cases([case], remembered=memory)
    assert readings == ["one"]
    assert len(json.loads(memory.read_text())) == 1


def test_warnings_are_printed_of_five_cases_also_when_they_are_remembered(case, tmp_path, capsys):
    nib.save(turn(nib.load(case.label), "RAS"), case.label)
    cases = [replace(case, case_id=f"case{number}") for number in range(7)]
    for _ in range(2):
        check_cases(cases, remembered=tmp_path / "checked.json")
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("Warnings on 7 of 7 cases. They are used all the same")
        assert [line.partition(":")[0] for line in said[1:]] == [f"- case{number}" for number in range(5)] + [
            "- and 2 more"
        ]
        assert "The label's axes run RAS, those of the scan LPS: it was reoriented to the scan's axes." in said[1]
        assert said[-1].endswith(": case5, case6")
