"""MONAI's own network for brain tumours, from its model zoo: where it is kept, and how it gets there.

Source: Project-MONAI/model-zoo, models/brats_mri_segmentation (Apache-2.0). The network was trained on 200 patients of
BraTS 2018; on their validation patients its authors report a mean Dice of .852. We have not measured it.
"""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from monai import bundle
from monai.apps import download_url
from monai.apps.utils import HashCheckError, check_hash

from brats_utils.paths import display_path, say

NAME, VERSION = "brats_mri_segmentation", "0.5.2"
URL = f"https://api.ngc.nvidia.com/v2/models/nvidia/monaihosting/{NAME}/versions/{VERSION}/files/{NAME}_v{VERSION}.zip"
ARCHIVE_SHA1 = "6b1dfef29d49c6f6a1d8bf9f65c84125ad37a6e9"
"""Address and checksum of the archive. Source: models/model_info.json in the zoo, entry brats_mri_segmentation_v0.5.2."""

WEIGHTS_MD5 = "870e677b782a5184cbc48db1456b78e8"
"""Of models/model.pt; versions 0.3.0 to 0.5.2 share it. Source: large_files.yml beside the bundle in the zoo."""


class ZooError(RuntimeError):
    """MONAI's network could not be fetched, or is not the one that the zoo names; nothing half-written is left."""


def find_zoo_folder() -> Path:
    """Where `monai.bundle` keeps what it downloads; the variables TORCH_HOME and XDG_CACHE_HOME move it."""
    return Path(torch.hub.get_dir()) / "bundle" / NAME


def fetch_zoo_bundle() -> Path:
    """Give the folder of the bundle, downloaded where it is not there yet, and verified.

    An archive that was put beside the folder by hand takes the place of the download.

    Raises:
        ZooError: no network, a wrong checksum, or no room on the disk.
    """
    folder = find_zoo_folder()
    weights = folder / "models" / "model.pt"
    with _quiet_log():
        if not folder.is_dir():
            _download(folder)
        verified = weights.is_file() and check_hash(weights, WEIGHTS_MD5, "md5")
    if not verified:
        found = "other weights" if weights.is_file() else "no weights"
        raise ZooError(
            f"{weights}: found {found} than the zoo names, expected MD5 {WEIGHTS_MD5}. Delete the folder {folder}, and "
            "run this again to download it anew."
        )
    return folder


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep MONAI's log of each step out of notebooks: it names folders of the machine."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _download(folder: Path) -> None:
    """Let MONAI download and unpack the bundle beside its place, then move it there whole."""
    by_hand = folder.with_name(f"{NAME}_v{VERSION}.zip")
    remedy = f"Without a network, get that file elsewhere, put it at {by_hand}, and run this again."
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}-") as staging:
            archive = Path(staging) / f"{NAME}.zip"
            if by_hand.is_file():
                shutil.copyfile(by_hand, archive)
            else:
                say(f"Downloading MONAI's {NAME} {VERSION} to {display_path(folder)} (about 40 MB).")
            download_url(URL, archive, hash_val=ARCHIVE_SHA1, hash_type="sha1", progress=False)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="No hash value provided")  # it was compared a line above
                bundle.download(NAME, bundle_dir=staging, url=URL, progress=False)  # finds the archive, and unpacks it
            if not folder.is_dir():  # another process may have been faster
                os.replace(Path(staging) / NAME, folder)
    except HashCheckError:
        source = by_hand if by_hand.is_file() else URL
        raise ZooError(
            f"{source}: not the file that the zoo names, expected SHA-1 {ARCHIVE_SHA1}. It was not used. {remedy}"
        ) from None
    except (OSError, RuntimeError) as error:
        raise ZooError(f"{URL}: could not be had ({error}). Nothing half-written was kept. {remedy}") from error
