import json
import shutil

import pytest
import torch

from brats_utils.data import (
    DataError,
    build_dataset,
    build_loader,
    choose_cache,
    load_cases,
    prepare_dataset,
    split_cases,
)
from brats_utils.labels import BRATS_2021, MSD, LabelError
from brats_utils.transforms import build_cached_transform, build_eval_transform, build_train_transform


@pytest.fixture
def cases(phantom_dir):
    return load_cases(phantom_dir, schema=MSD)


@pytest.fixture
def copied_dir(phantom_dir, tmp_path):
    return shutil.copytree(phantom_dir, tmp_path / "data")


def test_cases_are_listed_by_id(cases):
    assert [case.case_id for case in cases] == sorted(case.case_id for case in cases)
    assert all(case.image.is_file() and case.label.is_file() for case in cases)


def test_folder_without_dataset_json_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(DataError, match="01_setup makes it"):
        load_cases(tmp_path, schema=MSD)


def test_folder_of_another_schema_is_refused(phantom_dir):
    with pytest.raises(LabelError, match="set label_schema"):
        load_cases(phantom_dir, schema=BRATS_2021)


def test_missing_file_is_named(copied_dir):
    gone = load_cases(copied_dir, schema=MSD)[0].label
    gone.unlink()
    with pytest.raises(DataError, match=gone.name):
        load_cases(copied_dir, schema=MSD)


@pytest.mark.parametrize("text", ["{", '{"training": 3}', '{"training": [{"image": "a"}]}'])
def test_damaged_dataset_json_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        load_cases(tmp_path, schema=MSD)


def test_missing_folder_of_unknown_name_is_not_invented(tmp_path):
    with pytest.raises(DataError, match="expected a folder in the layout of MSD"):
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
    with pytest.raises(DataError, match="in two parts"):
        split_cases(cases, tmp_path / "split.json", seed=0)


def test_changed_file_is_noticed(copied_dir, tmp_path):
    copied = load_cases(copied_dir, schema=MSD)
    split_cases(copied, tmp_path / "split.json", seed=0)
    shutil.copy(copied[0].label, copied[1].label)
    with pytest.raises(DataError, match="made for other cases or files"):
        split_cases(copied, tmp_path / "split.json", seed=0)


def test_damaged_split_is_refused(cases, tmp_path):
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(DataError, match="Delete it to split anew"):
        split_cases(cases, tmp_path / "split.json", seed=0)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_every_cache_gives_the_same_cases(cases, tmp_path, cache):
    parts = {"cached": build_cached_transform(4.0, schema=MSD), "on_the_fly": build_eval_transform(MSD)}
    cached = build_dataset(cases[:1], **parts, cache=cache, cache_dir=tmp_path)
    plain = build_dataset(cases[:1], **parts, cache="none")
    for _ in range(2):  # the second visit comes from the cache
        torch.testing.assert_close(cached[0]["image"], plain[0]["image"])
        assert torch.equal(cached[0]["label"], plain[0]["label"])


def test_disk_cache_of_another_spacing_is_not_reused(cases, tmp_path):
    def shape(spacing_mm):
        transforms = {"cached": build_cached_transform(spacing_mm, schema=MSD), "on_the_fly": build_eval_transform(MSD)}
        return build_dataset(cases[:1], **transforms, cache="disk", cache_dir=tmp_path)[0]["image"].shape

    assert shape(4.0) != shape(8.0)
    assert shape(4.0) == shape(4.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_loader_gives_patches_with_the_ids_of_their_cases(cases):
    random_part = build_train_transform((16, 16, 16), schema=MSD)
    dataset = build_dataset(cases[:3], cached=build_cached_transform(4.0, schema=MSD), on_the_fly=random_part)
    batches = list(build_loader(dataset, batch_size=2, shuffle=True, num_workers=0, seed=0))
    assert len(batches) == 1
    assert batches[0]["image"].shape == (2, 4, 16, 16, 16)
    assert set(batches[0]["case_id"]) <= {case.case_id for case in cases}


def test_cache_choice_is_said_aloud(capsys):
    assert choose_cache("auto", 1, spacing_mm=4.0) == "ram"
    assert choose_cache("auto", 10_000_000, spacing_mm=1.0) == "disk"
    assert choose_cache("none", 1, spacing_mm=1.0) == "none"
    assert "Cache: disk (10000000 cases" in capsys.readouterr().out
