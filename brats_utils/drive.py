"""Google Drive, which a Colab notebook can mount: the only folder there that outlives the machine."""

import sys
from pathlib import Path

IN_COLAB = "google.colab" in sys.modules

DRIVE = Path("/content/drive")
"""Where Colab mounts it."""


def mount_drive(path: str) -> Path:
    """Mount Google Drive and give the place of a path in it, such as `brats/run1`; outside Colab an `OSError`."""
    if not IN_COLAB:
        raise OSError(
            f"drive:{path}: found no Google Drive, which is mounted in Colab alone. Give output_dir as a folder."
        )
    from google.colab import drive

    drive.mount(str(DRIVE))
    return DRIVE / "MyDrive" / path
