import multiprocessing
import random
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from brats_utils import transforms
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD
from brats_utils.loading import (
    WORKER_BYTES,
    EpochBatches,
    build_dataset,
    build_eval_loader,
    build_train_loader,
    choose_cache,
)
from brats_utils.transforms import build_cached_transform, build_eval_transform, build_train_transform


@pytest.fixture
def cases(phantom_dir):
    return find_cases(phantom_dir)


def build_patches(cases, **settings):
    transforms = {
        "cached": build_cached_transform(4.0),
        "on_the_fly": build_train_transform((16, 16, 16), schema=MSD, appearance="strong"),
    }
    return build_dataset(cases, **transforms, **settings)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_every_cache_gives_the_same_cases(cases, tmp_path, cache):
    parts = {"cached": build_cached_transform(4.0), "on_the_fly": build_eval_transform(MSD)}
    cached = build_dataset(cases[:1], **parts, cache=cache, cache_dir=tmp_path)
    plain = build_dataset(cases[:1], **parts, cache="none")
    for _ in range(2):  # the second visit comes from the cache
        torch.testing.assert_close(cached[0]["image"], plain[0]["image"])
        assert torch.equal(cached[0]["label"], plain[0]["label"])


@pytest.mark.parametrize(("cache", "reads"), [("ram", 1), ("disk", 1), ("none", 3)])
def test_a_cached_case_is_read_once(cases, tmp_path, monkeypatch, cache, reads):
    read = []
    monkeypatch.setattr(transforms, "read_case", lambda case: read.append(case) or read_case(case))
    dataset = build_patches(cases[:1], cache=cache, cache_dir=tmp_path)
    for epoch in range(3):
        assert dataset[epoch, 0]
    assert len(read) == reads


def test_disk_cache_of_another_spacing_is_not_reused(cases, tmp_path):
    def shape(spacing_mm):
        transforms = {"cached": build_cached_transform(spacing_mm), "on_the_fly": build_eval_transform(MSD)}
        return build_dataset(cases[:1], **transforms, cache="disk", cache_dir=tmp_path)[0]["image"].shape

    assert shape(4.0) != shape(8.0)
    assert shape(4.0) == shape(4.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_loader_gives_patches_with_the_ids_of_their_cases(cases):
    random_part = build_train_transform((16, 16, 16), schema=MSD, appearance="strong")
    dataset = build_dataset(cases[:3], cached=build_cached_transform(4.0), on_the_fly=random_part)
    batches = list(build_train_loader(dataset, batch_size=2, num_workers=0, seed=0))
    assert len(batches) == 1
    assert batches[0]["image"].shape == (2, 4, 16, 16, 16)
    assert set(batches[0]["case_id"]) <= {case.case_id for case in cases}


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="auto takes the disk where nothing is forked")
def test_cache_choice_is_said_aloud(capsys):
    assert choose_cache("auto", 1, spacing_mm=4.0) == "ram"
    assert choose_cache("auto", 10_000_000, spacing_mm=1.0) == "disk"
    assert choose_cache("none", 1, spacing_mm=1.0) == "none"
    assert "Cache: disk (10000000 cases" in capsys.readouterr().out
    assert choose_cache("auto", 1, spacing_mm=1.0, processes=10_000) == "disk"


def test_a_visit_looks_the_same_whatever_came_before(cases):
    dataset = build_patches(cases[:3])
    visits = [(epoch, index) for epoch in range(2) for index in range(3)]
    first = {visit: dataset[visit][0]["image"] for visit in visits}
    random.Random(0).shuffle(visits)
    assert all(torch.equal(dataset[visit][0]["image"], first[visit]) for visit in visits)
    assert not torch.equal(first[0, 0], first[1, 0])


def test_number_of_workers_changes_nothing(cases):
    dataset = build_patches(cases[:4])
    here, there = (
        next(iter(build_train_loader(dataset, batch_size=2, num_workers=workers, seed=0))) for workers in (0, 2)
    )
    assert torch.equal(here["image"], there["image"])
    assert here["case_id"] == there["case_id"]


@pytest.fixture
def spawned():
    """Workers start as on Windows and macOS: with nothing but what is sent to them."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_workers_that_are_spawned_share_a_cache_on_disk_and_give_the_same(cases, spawned, tmp_path):
    cache = choose_cache("auto", 2, spacing_mm=4.0)
    assert cache == "disk"
    dataset = build_patches(cases[:2], cache=cache, cache_dir=tmp_path)
    here, there = (next(iter(build_train_loader(dataset, batch_size=2, num_workers=n, seed=0))) for n in (0, 1))
    assert torch.equal(here["image"], there["image"])


def test_a_cache_in_memory_is_not_sent_to_workers_that_are_spawned(cases, spawned, capsys):
    loader = build_train_loader(build_patches(cases[:2], cache="ram"), batch_size=2, num_workers=2, seed=0)
    assert loader.num_workers == 0
    assert "0 workers, not 2: here each would be sent a copy of the cache in memory" in capsys.readouterr().out
    assert len(list(loader)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /dev/shm")
@pytest.mark.parametrize(("free", "workers"), [(64_000_000, 0), (WORKER_BYTES, 1), (10 * WORKER_BYTES, 2)])
def test_little_shared_memory_as_in_docker_means_fewer_workers(cases, monkeypatch, capsys, free, workers):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
    loader = build_train_loader(build_patches(cases[:2]), batch_size=2, num_workers=2, seed=0)
    assert loader.num_workers == workers
    assert ("Start Docker with --ipc=host" in capsys.readouterr().out) == (workers < 2)


def test_an_epoch_gives_each_case_once_in_an_order_of_its_own():
    batches = EpochBatches(6, batch_size=2, seed=0)
    first = [visit for batch in batches for visit in batch]
    batches.epoch = 1
    second = [visit for batch in batches for visit in batch]
    assert sorted(first) == [(0, index) for index in range(6)]
    assert [index for _, index in first] != [index for _, index in second]


def test_an_epoch_goes_on_where_it_stopped():
    whole, rest = EpochBatches(6, batch_size=2, seed=0), EpochBatches(6, batch_size=2, seed=0)
    rest.start = 1
    assert list(rest) == list(whole)[1:]


def test_processes_share_each_batch_of_one_process():
    alone = list(EpochBatches(9, batch_size=4, seed=0))
    shares = [list(EpochBatches(9, batch_size=2, seed=0, rank=rank, world_size=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in alone]


def test_more_processes_than_cases_are_refused():
    with pytest.raises(ValueError, match="start fewer"):
        EpochBatches(3, batch_size=1, seed=0, rank=0, world_size=4)


def test_each_case_is_validated_by_one_process_only(cases):
    dataset = build_dataset(cases[:3], cached=build_cached_transform(4.0), on_the_fly=build_eval_transform(MSD))
    loaders = [build_eval_loader(dataset, num_workers=0, rank=rank, world_size=4) for rank in range(4)]
    ids = [batch["case_id"][0] for loader in loaders for batch in loader]
    assert sorted(ids) == [case.case_id for case in cases[:3]]


def test_no_case_to_validate_on_is_refused():
    dataset = build_dataset([], cached=build_cached_transform(4.0), on_the_fly=build_eval_transform(MSD))
    with pytest.raises(ValueError, match=r"no case to validate on, expected one at least\. Give data with three"):
        build_eval_loader(dataset, num_workers=0)


def test_prepared_files_are_used_again(cases, tmp_path):
    build_patches(cases[:2], cache="disk", cache_dir=tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build_patches(cases[:2], cache="disk", cache_dir=tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which Linux alone has")
def test_disk_cache_is_mapped_and_not_read_into_memory(cases, tmp_path):
    dataset = build_patches(cases[:1], cache="disk", cache_dir=tmp_path)
    case = dataset.prepared[0]
    assert str(dataset.prepared.paths[0]) in Path("/proc/self/maps").read_text()
    del case
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
