"""A file of `torch.save`, which may be another's: its bytes are checked, and no code of it runs."""

import zipfile
from pathlib import Path
from typing import Any

import torch

FOLDER = 0x10
"""Bit of a zip entry's attributes. A tensor never has it; with it, torch reads whatever is in memory."""


def read_archive(path: Path) -> Any:
    """Read tensors and plain values from a zip of `torch.save`.

    Raises:
        OSError: its bytes are not as they were written.
        pickle.UnpicklingError: it holds more than tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums it wrote
        folders = [entry.filename for entry in archive.infolist() if entry.external_attr & FOLDER]
        damaged = archive.testzip() or next(iter(folders), None)
    if damaged:
        raise OSError(f"{damaged} is not as it was written")
    return torch.load(path, map_location="cpu", weights_only=True)
