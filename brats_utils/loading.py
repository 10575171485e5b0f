"""Data sets that do the slow part once, and loaders whose every random choice can be made again."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from monai.data import CacheDataset, Dataset, get_track_meta, set_track_meta
from monai.data.utils import list_data_collate, pickle_hashing
from monai.transforms import Compose, Randomizable
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from brats_utils.cases.case import Case, stamp_files
from brats_utils.memory import keep_freed_memory
from brats_utils.paths import replacing, say

CacheKind = Literal["ram", "disk", "none"]

CASE_BYTES = 30_000_000
"""A 1 mm case cropped to the brain, float16 image and uint8 label: 137x171x137 voxels of 9 bytes, rounded up."""
MAX_RAM_BYTES = 16_000_000_000
"""No cache in memory grows beyond this, however large the machine; all 484 cases of MSD fit in it."""
WORKER_BYTES = 500_000_000
"""Of shared memory for each process that loads: two batches ahead and one on its way, of four large patches each."""


def choose_cache(cache: str, num_cases: int, *, spacing_mm: float, processes: int = 1) -> CacheKind:
    """Decide where prepared cases are kept, and say so: in memory if they take at most half of what is free.

    `cache` is `auto`, or the decision already made; `spacing_mm` the voxel size that the cases are resampled to. Of the
    `processes` that train on this machine each would keep a memory cache of its own; mapped files they share.
    Where workers are not forked, as on Windows and macOS, each would be sent the cache, so `auto` is the disk.
    """
    needed = processes * num_cases * CASE_BYTES / spacing_mm**3
    free = psutil.virtual_memory().available
    if cache == "auto":
        room = min(free / 2, MAX_RAM_BYTES) if multiprocessing.get_start_method() == "fork" else 0
        cache = "ram" if needed < room else "disk"
    say(f"Cache: {cache} ({num_cases} cases, about {needed / 1e9:.2f} GB; {free / 1e9:.1f} GB of memory free).")
    return cache  # type: ignore[return-value]


class MappedDataset(torch.utils.data.Dataset):
    """Prepared cases in files that are mapped into memory: a patch reads the pages it touches and no more."""

    def __init__(self, cases: Sequence[Case], transform: Compose, cache_dir: Path) -> None:
        recipe = pickle_hashing(transform.transforms).decode()
        # what a prepared case depends on: its files as they are now, their label convention, and the transforms
        keys = [pickle_hashing([recipe, case.label_schema, *stamp_files(case)]).decode()[:16] for case in cases]
        self.paths = [cache_dir / f"{case.case_id}-{key}.pt" for case, key in zip(cases, keys, strict=True)]
        for case, path in zip(tqdm(cases, desc="Preparing cases"), self.paths, strict=True):
            if not path.exists():
                with replacing(path) as temporary:
                    torch.save(transform(case), temporary)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Open one case; its tensors stay on disk until they are read."""
        case: dict[str, Any] = torch.load(self.paths[index], mmap=True, weights_only=True)
        return case


class CaseDataset(torch.utils.data.Dataset):
    """Prepared cases, and what is done to them at each visit.

    The random part of a visit follows from the seed, the epoch and the case alone. So a case looks the
    same in an epoch whatever came before: after a resume, with any number of workers, on any number of machines.
    """

    def __init__(self, prepared: Dataset | MappedDataset, on_the_fly: Compose, *, seed: int) -> None:
        self.prepared = prepared
        self.on_the_fly = on_the_fly
        self.seed = seed

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, visit: int | tuple[int, int]) -> Any:
        """Give the case of an index as it looks in an epoch: `visit` is (epoch, index), or an index alone for epoch 0."""
        epoch, index = visit if isinstance(visit, tuple) else (0, visit)
        state = np.random.RandomState(derive_seed(self.seed, epoch, index))
        for transform in self.on_the_fly.transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=state)  # one for all: a seed for each costs more than a small patch
        case = self.prepared[index]
        tracked = get_track_meta()
        set_track_meta(False)  # the metadata is gone already, and to look after none of it took half the time
        try:
            return self.on_the_fly(case)
        finally:
            set_track_meta(tracked)


def derive_seed(*numbers: int) -> int:
    """Mix numbers, such as seed, epoch and index, into one 32-bit seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def build_dataset(
    cases: Sequence[Case],
    *,
    cached: Compose,
    on_the_fly: Compose,
    cache: CacheKind = "ram",
    cache_dir: Path | None = None,
    seed: int = 0,
) -> CaseDataset:
    """Build a data set that does its deterministic part once and its random part at each visit.

    Args:
        cases: what to load.
        cached: deterministic transform from files to tensors, see `transforms.build_cached_transform`.
        on_the_fly: transform of a prepared case; must not write into the tensors it is given.
        cache: keep the outcome of `cached` in memory, in files that are mapped into memory, or nowhere.
        cache_dir: folder for `cache="disk"`; an interrupted run is picked up from it.
        seed: of the random part.
    """
    if cache == "ram":
        # copy_cache=False: the crop comes first and copies only the patch, not the whole case
        return CaseDataset(CacheDataset(cases, cached, copy_cache=False, num_workers=2), on_the_fly, seed=seed)
    if cache == "disk":
        if cache_dir is None:
            raise ValueError("cache_dir: found None, expected a folder, because cache is 'disk'.")
        return CaseDataset(MappedDataset(cases, cached, cache_dir), on_the_fly, seed=seed)
    return CaseDataset(Dataset(cases, cached), on_the_fly, seed=seed)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) in an order that follows from seed and epoch alone; each process takes its share."""

    def __init__(self, num_cases: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_cases, self.batch_size, self.seed = num_cases, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0  # the epoch to give next
        self.start = 0  # batches of it to leave out, because they were trained on before an interruption
        if num_cases < world_size:
            raise ValueError(f"Found {num_cases} cases for {world_size} processes, expected a case each; start fewer.")

    def __len__(self) -> int:
        """Batches a whole epoch; the last, incomplete one is left out, unless it is the only one."""
        return max(1, self.num_cases // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng(derive_seed(self.seed, self.epoch)).permutation(self.num_cases).tolist()
        step = self.batch_size * self.world_size
        for batch in range(self.start, len(self)):
            mine = order[batch * step : (batch + 1) * step][self.rank :: self.world_size]
            yield [(self.epoch, index) for index in mine]


def build_train_loader(
    dataset: CaseDataset, *, batch_size: int, num_workers: int, seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Build a loader of random patches, `batch_size` cases per batch and process; `EpochBatches` is its `batch_sampler`.

    As many processes load as there are workers; 0 loads in this one, -1 goes by the cores of the machine. `rank` is the
    number of this training process among the `world_size` that train together.
    """
    batches = EpochBatches(len(dataset), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    return _build_loader(dataset, num_workers=num_workers, batch_sampler=batches)


def build_eval_loader(dataset: CaseDataset, *, num_workers: int, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Build a loader of whole cases, one per batch; each process takes other cases, none is given twice to fill up.

    The rest is as for `build_train_loader`; a `ValueError` if there is no case.
    """
    if len(dataset) == 0:
        raise ValueError(
            "Found no case to validate on, expected one at least. Give data with three labelled cases or more, and another "
            "output_dir."
        )
    return _build_loader(dataset, num_workers=num_workers, batch_size=1, sampler=range(rank, len(dataset), world_size))


def _build_loader(dataset: CaseDataset, *, num_workers: int, **batches: Any) -> DataLoader:
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if num_workers < 0:  # beside a GPU the cores are free to load; a CPU that trains has none to spare
        cores = (os.cpu_count() or 1) // processes
        num_workers = min(8, cores) if torch.cuda.is_available() else 0
    room, why = _count_workers(dataset, num_workers, processes=processes)
    if room < num_workers:
        say(f"Loading: {room} workers, not {num_workers}: {why}")
        num_workers = room
    return DataLoader(
        dataset,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=list_data_collate,  # a cropping transform gives a list of patches
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        **batches,
    )


def _count_workers(dataset: CaseDataset, wanted: int, *, processes: int) -> tuple[int, str]:
    """How many workers this machine has room for, and why no more, for each of the processes that train on it."""
    shared = Path("/dev/shm")
    if isinstance(dataset.prepared, CacheDataset) and multiprocessing.get_start_method() != "fork":
        return 0, "here each would be sent a copy of the cache in memory. Set cache to disk to have them."
    if not shared.is_dir():
        return wanted, ""
    # where workers leave their batches on Linux; Docker gives it 64 MB
    room = shutil.disk_usage(shared).free // WORKER_BYTES // processes
    size = f"{WORKER_BYTES / 1e9} GB of {shared}"
    return room, f"each takes {size}. Start Docker with --ipc=host or --shm-size=8g to have them."


def _start_worker(worker: int) -> None:
    """Ctrl-C reaches the workers too; the training process decides when they end."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
