"""What a command cannot do it refuses before it begins, in one sentence."""

import pytest

from brats_utils.commands import cli


@pytest.mark.parametrize(
    ("option", "value"),
    [*(("--spacing", value) for value in (0, -1, "nan", "inf", 60)), ("--seed", -1), ("--cases", 0)],
)
def test_a_phantom_of_impossible_numbers_is_refused(tmp_path, refused, option, value):
    message = refused("phantom", "--out", tmp_path / "p", option, value)
    assert message.startswith(("error: spacing: found", "error: Found seed"))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_evaluation_is_not_overwritten_unasked(checkpoint, tmp_path, refused):
    (tmp_path / "cases.csv").write_text("mine")
    command = ("evaluate", "--checkpoint", checkpoint, "--data", tmp_path / "none", "--out", tmp_path)
    assert "found the cases.csv of an earlier evaluation, expected none" in refused(*command)
    assert "not found, or no folder" in refused(*command, "--overwrite")
    assert (tmp_path / "cases.csv").read_text() == "mine"


def test_scans_given_in_two_ways_or_in_part_are_refused(checkpoint, tmp_path, refused):
    for given in (["--image", "a", "--t1", "b"], []):
        message = refused("predict", "--checkpoint", checkpoint, "--out", tmp_path, *given)
        assert "or --patients with a folder, or --flair, --t1, --t1gd, --t2 (one may be missing)" in message
    message = refused("predict", "--checkpoint", checkpoint, "--out", tmp_path, "--flair", "a", "--t1", "b")
    assert "found no T1gd and no T2w" in message


def test_missing_checkpoint_is_one_sentence_and_no_traceback(phantom_dir, tmp_path, refused):
    message = refused("evaluate", "--checkpoint", tmp_path / "no.pt", "--data", phantom_dir, "--out", tmp_path)
    assert message.startswith("error: ")
    assert "03_train makes it" in message
    assert "Traceback" not in message


def test_the_librarys_sentence_is_shown_and_not_its_cause(checkpoint, tmp_path, refused):
    (tmp_path / "dataset.json").write_text("[]")
    command = ("evaluate", "--checkpoint", checkpoint, "--data", tmp_path, "--out", tmp_path / "out")
    assert "Expected MSD's or nnU-Net's keys; copy it again." in refused(*command)
    command = ("export", "--checkpoint", checkpoint, "--out", tmp_path / "dataset.json/sub")
    assert "could not be written" in refused(*command)


def test_what_monai_wraps_is_shown_without_the_wrapping(checkpoint, phantom_dir, tmp_path, refused, monkeypatch):
    def fail(*arguments, **settings):
        try:
            raise ValueError("scan.nii.gz: found a moon")
        except ValueError as error:
            raise RuntimeError("applying transform <Compose>") from error

    monkeypatch.setattr(cli, "find_cases", fail)
    command = ("evaluate", "--checkpoint", checkpoint, "--data", phantom_dir, "--out", tmp_path)
    assert refused(*command) == "error: scan.nii.gz: found a moon\n"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_place_of_the_output_folder_is_refused_before_predicting(
    checkpoint, phantom_dir, tmp_path, refused, name
):
    (tmp_path / "file").write_text("mine")
    shared = ("--checkpoint", checkpoint, "--out", tmp_path / name)
    for command in (("predict", "--image", "a"), ("predict", "--patients", "a"), ("evaluate", "--data", phantom_dir)):
        assert f"found the file {tmp_path / 'file'}, expected a folder" in refused(*command, *shared)


def test_an_output_folder_that_cannot_be_written_is_refused_before_predicting(
    checkpoint, phantom_dir, tmp_path, refused, monkeypatch
):
    def refuse(*arguments, **settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli, "TemporaryFile", refuse)  # root, as in containers, may write anywhere
    for command in (("predict", "--image", "a"), ("evaluate", "--data", phantom_dir)):
        message = refused(*command, "--checkpoint", checkpoint, "--out", tmp_path / "out")
        assert "nothing can be written there (Permission denied), expected a folder of yours" in message


def test_metrics_that_are_no_json_are_named(checkpoint, tmp_path, refused):
    (tmp_path / "metrics.json").write_text("")
    command = ("export", "--checkpoint", checkpoint, "--out", tmp_path / "out", "--metrics", tmp_path / "metrics.json")
    assert f"--metrics {tmp_path / 'metrics.json'}: found no JSON (Expecting value" in refused(*command)


def test_unknown_notebook_and_unknown_parameter_are_refused(refused):
    assert "expected some of 01_setup" in refused("run", "05_nothing")
    assert "unknown parameter" in refused("run", "-p", "prset", "smoke")
    assert "expected str" in refused("run", "-p", "preset", "3")
    assert "output_dir: found 3 (int), expected str" in refused("run", "-p", "output_dir", "3")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("overrides", "{seedd: 1}", "seedd: unknown setting. Did you mean seed"),
        ("overrides", "{1: 2}", "1: unknown setting"),
        ("preset", "foo", "preset: found 'foo', expected one of smoke"),
    ],
)
def test_an_unknown_setting_is_refused_before_a_notebook_runs(refused, monkeypatch, name, value, message):
    monkeypatch.setattr(cli, "run_notebooks", lambda *arguments, **how: pytest.fail("a notebook ran"))
    assert message in refused("run", "-p", name, value)


@pytest.mark.parametrize("command", [("run", "-p", "overrides"), ("train", "--set", "overrides")], ids=lambda c: c[0])
def test_malformed_yaml_is_one_sentence(command, refused):
    assert "overrides: found '{seed: 1', which is no YAML" in refused(*command, "{seed: 1")
