"""What a notebook makes of its parameters, also where papermill alone hands them over, as text."""

import pytest

from brats_utils.cases.case import CaseError
from brats_utils.config import ConfigError, load_config
from brats_utils.paths import display_path, resolve_path
from brats_utils.project import open_project, read_switch


def open_phantom(phantom_dir, out, **others):
    named = {"preset": "smoke", "data": str(phantom_dir), "output_dir": str(out), "overrides": {}}
    return open_project(**named | others)


def test_a_project_is_what_the_parameters_name_and_is_printed(phantom_dir, tmp_path, capsys):
    project = open_phantom(phantom_dir, tmp_path / "run")
    assert {part: len(cases) for part, cases in project.parts.items()} == {"train": 4, "val": 1, "test": 1}
    assert project.schema.name == "msd"
    assert project.test_cases == project.parts["test"]
    assert "6 cases of dataset (4 train, 1 val, 1 test), msd convention." in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{max_train_epochs: 3}", "max_train_epochs: 3", '{"max_train_epochs": "3"}'])
def test_settings_may_be_text_as_papermill_hands_them_over(phantom_dir, tmp_path, text):
    assert open_phantom(phantom_dir, tmp_path, overrides=text).cfg.max_train_epochs == 3


@pytest.mark.parametrize("text", ["three", "[1, 2]", "{a: [}", "3"])
def test_settings_that_are_none_are_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"overrides: found .*(expected settings such as|no YAML)"):
        load_config("smoke", text)


def test_no_text_is_no_setting():
    assert load_config("smoke", "") == load_config("smoke")


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), ("false", False), ("False", False), (0, False), ("yes", True)]
)
def test_a_switch_may_be_text(value, expected):
    assert read_switch("resume", value) is expected


@pytest.mark.parametrize("value", ["maybe", 7, None, ""])
def test_a_switch_that_is_neither_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"resume: found .* expected true or false"):
        read_switch("resume", value)


def test_a_folder_named_by_a_number_is_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # papermill takes 2026 for a number
    assert resolve_path(2026) == tmp_path / "2026"


def test_data_without_a_test_case_is_refused_where_one_is_needed(phantom_dir, tmp_path):
    project = open_phantom(phantom_dir, tmp_path)
    project.parts["test"].clear()
    with pytest.raises(CaseError, match="found no test case among 4, expected one at least"):
        _ = project.test_cases


def test_a_relative_path_starts_in_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("runs/x") == tmp_path / "runs/x"
    assert display_path(tmp_path / "runs/x") == "runs/x"
    assert display_path("runs/x") == "runs/x"
    assert display_path(tmp_path.parent) == str(tmp_path.parent)
