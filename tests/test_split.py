"""The data set of a run, and its split: every case in one part, the same when read again."""

import json
import shutil
from dataclasses import replace

import pytest

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.split import NUM_FOLDS, prepare_dataset, read_folds, split_cases, take_fold
from brats_utils.saving.checkpoints import CheckpointError
from brats_utils.saving.resume import load_progress, save_progress


@pytest.fixture
def cases(phantom_dir):
    return find_cases(phantom_dir)


@pytest.fixture
def copied_dir(phantom_dir, tmp_path):
    return shutil.copytree(phantom_dir, tmp_path / "data")


def test_a_phantom_of_ones_own_is_used_as_it_is(phantom_dir, tmp_path):
    mine = shutil.copytree(phantom_dir, tmp_path / "phantom-mine")
    before = (mine / "dataset.json").stat().st_mtime_ns
    assert prepare_dataset(mine, spacing_mm=2.0, num_cases=120, seed=0) == mine
    assert (mine / "dataset.json").stat().st_mtime_ns == before


def test_a_presets_own_phantom_of_other_content_is_refused(phantom_dir, tmp_path):
    old = shutil.copytree(phantom_dir, tmp_path / "phantom-2.0mm-120cases-seed0")
    with pytest.raises(FileExistsError, match="move this one elsewhere to have it generated again"):
        prepare_dataset(old, spacing_mm=2.0, num_cases=120, seed=0)


def test_a_folder_of_patients_without_dataset_json_is_used_as_it_is(tmp_path):
    (tmp_path / "one").mkdir()
    assert prepare_dataset(tmp_path, spacing_mm=4, num_cases=3, seed=0) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_missing_folder_of_unknown_name_is_not_invented(tmp_path):
    with pytest.raises(CaseError, match="not found, expected a folder of cases"):
        prepare_dataset(tmp_path / "my_scans", spacing_mm=4, num_cases=3, seed=0)


def test_split_puts_every_case_into_one_part_and_is_the_same_when_read_again(cases, tmp_path):
    parts = split_cases(cases, tmp_path / "split.json", seed=0)
    assert sorted(case.case_id for part in parts.values() for case in part) == [case.case_id for case in cases]
    assert all(parts.values())
    assert split_cases(cases, tmp_path / "split.json", seed=1) == parts


def test_split_follows_the_seed(cases, tmp_path):
    splits = [split_cases(cases, tmp_path / f"{seed}.json", seed=seed)["test"] for seed in range(6)]
    assert any(split != splits[0] for split in splits)


def test_a_single_case_is_for_looking_at(cases, tmp_path):
    assert split_cases(cases[:1], tmp_path / "split.json", seed=0) == {"train": cases[:1], "val": [], "test": []}


def test_case_in_two_parts_is_refused(cases, tmp_path):
    split_cases(cases, tmp_path / "split.json", seed=0)
    manifest = json.loads((tmp_path / "split.json").read_text())
    manifest["parts"]["test"].append(manifest["parts"]["train"][0])
    (tmp_path / "split.json").write_text(json.dumps(manifest))
    with pytest.raises(CaseError, match="in two parts"):
        split_cases(cases, tmp_path / "split.json", seed=0)


def test_changed_file_is_noticed(copied_dir, tmp_path):
    copied = find_cases(copied_dir)
    split_cases(copied, tmp_path / "split.json", seed=0)
    shutil.copy(copied[0].label, copied[1].label)
    with pytest.raises(CaseError, match="made for other cases or files"):
        split_cases(copied, tmp_path / "split.json", seed=0)


def test_damaged_split_is_refused(cases, tmp_path):
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(CaseError, match="Delete it to split anew"):
        split_cases(cases, tmp_path / "split.json", seed=0)


def test_each_case_that_is_not_for_test_is_held_out_once(phantom_dir, tmp_path):
    cases = [replace(case, case_id=f"{case.case_id}-{copy}") for case in find_cases(phantom_dir) for copy in range(2)]
    path = tmp_path / "split.json"
    parts = split_cases(cases, path, seed=0)
    folds = [take_fold(parts, path, fold=fold) for fold in range(1, NUM_FOLDS + 1)]
    held_out = sorted(case.case_id for fold in folds for case in fold["val"])
    assert held_out == sorted(case.case_id for part in ("train", "val") for case in parts[part])
    for fold in folds:
        assert fold["test"] == parts["test"]
        seen = {case.case_id for part in ("train", "val") for case in fold[part]}
        assert seen.isdisjoint(case.case_id for case in parts["test"])
        assert len(seen) == len(fold["train"]) + len(fold["val"]) == 10


def test_folds_depend_on_the_seed(cases, tmp_path):
    for seed in (0, 1):
        split_cases(cases, tmp_path / f"{seed}.json", seed=seed)
    assert read_folds(tmp_path / "0.json") != read_folds(tmp_path / "1.json")


@pytest.mark.parametrize(
    ("folds", "message"),
    [(None, "of an earlier version"), ([["a"]] * 5, "not its train and val cases"), ("empty", "expected 5 or more")],
    ids=["none", "of others", "too few cases"],
)
def test_folds_that_cannot_be_used_are_refused(cases, tmp_path, folds, message):
    path = tmp_path / "split.json"
    parts = split_cases(cases, path, seed=0)
    manifest = json.loads(path.read_text())
    if folds == "empty":
        folds = [[case.case_id for part in ("train", "val") for case in parts[part]], [], [], [], []]
    path.write_text(json.dumps(manifest | {"folds": folds}))
    with pytest.raises(CaseError, match=message):
        take_fold(parts, path, fold=1)


def test_a_training_of_another_fold_is_not_gone_on_with(state, tmp_path):
    save_progress(state, tmp_path, config={"fold": 1}, run_id="", is_best=False)
    with pytest.raises(CheckpointError, match="'fold': '1 there, 2 now'"):
        load_progress(tmp_path, config={"fold": 2})
