"""Download of the Medical Segmentation Decathlon's brain tumours (7 GB), whole or not at all."""

import os
import shutil
import tempfile
from pathlib import Path

from monai.apps import DecathlonDataset, download_url
from monai.apps.utils import HashCheckError, check_hash, extractall

MSD_TASK = "Task01_BrainTumour"
MSD_URL = DecathlonDataset.resource[MSD_TASK]
MSD_MD5 = DecathlonDataset.md5[MSD_TASK]
MSD_ARCHIVE_BYTES = 7_600_000_000
"""Size of the archive, rounded up. Source: medicaldecathlon.com, Task01_BrainTumour, 7.09 GiB."""


class DownloadError(RuntimeError):
    """The data set could not be fetched; nothing half-written is left under its name."""


def download_msd(dataset_dir: Path) -> Path:
    """Fetch, verify and extract Task01_BrainTumour; an existing folder is complete, for it comes into being whole.

    A finished archive is kept beside the folder until extraction has succeeded, so that a break in
    the extraction does not cost a second download. A broken download starts again from nothing.

    Raises:
        DownloadError: not enough space, no network, wrong checksum, unsafe or incomplete archive.
    """
    if dataset_dir.exists():
        return dataset_dir
    parent = dataset_dir.parent
    parent.mkdir(parents=True, exist_ok=True)
    archive = parent / f"{dataset_dir.name}.tar"
    copies = 1 if archive.exists() else 2  # the archive and what is in it
    needed = MSD_ARCHIVE_BYTES * copies
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DownloadError(
            f"Found {free / 1e9:.1f} GB free for the data set, expected {needed / 1e9:.1f} GB (archive and extracted "
            "copy). Free some space, choose another folder, or set data='phantom'."
        )
    if archive.exists() and not check_hash(archive, MSD_MD5, "md5"):
        archive.unlink()
    staging = Path(tempfile.mkdtemp(prefix=f".{dataset_dir.name}-", dir=parent))
    usual = tempfile.tempdir
    tempfile.tempdir = str(staging)  # for MONAI's partial download: the system's temporary folder is often small
    try:
        download_url(MSD_URL, archive, hash_val=MSD_MD5, hash_type="md5")
        extractall(archive, staging, has_base=False)
        (document,) = staging.glob("*/dataset.json")
        os.replace(document.parent, dataset_dir)
    except HashCheckError as error:
        raise DownloadError(
            f"{MSD_URL}: the file received does not match its checksum, expected MD5 {MSD_MD5}. "
            "It was discarded. Try again; if it fails again the source has changed."
        ) from error
    except OSError as error:
        raise DownloadError(
            f"{MSD_URL}: {error}. Nothing half-written was kept. Check the network and the disk, then run this again, "
            "or set data='phantom' to go on without the download."
        ) from error
    except ValueError as error:  # MONAI refuses links and climbing paths; or there is no single dataset.json
        archive.unlink(missing_ok=True)
        raise DownloadError(
            f"{MSD_URL}: not a usable archive ({error}). Expected one folder with a dataset.json. It was discarded."
        ) from error
    finally:
        tempfile.tempdir = usual
        shutil.rmtree(staging, ignore_errors=True)
    archive.unlink()
    return dataset_dir
