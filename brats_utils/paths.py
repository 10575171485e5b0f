"""Where things lie: relative paths, names fit for printing, and files that are written whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from brats_utils.drive import mount_drive

PLACES = (Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents)
REPOSITORY = next((place for place in PLACES if (place / "notebooks" / "01_setup.ipynb").is_file()), Path.cwd())
"""Where the notebooks are: above this package, or, where it is installed apart, in or above the working folder."""


def resolve_path(path: str | Path) -> Path:
    """Make a path absolute; a relative one starts in the working folder, as in the shell.

    Notebooks work in the repository's folder, see `colab.set_up`. In Colab `drive:folder` is a folder of Google Drive, which is mounted when it is first asked for.
    """
    if str(path).startswith("drive:"):
        return mount_drive(str(path).removeprefix("drive:"))
    return Path(str(path)).expanduser().absolute()  # papermill takes a name such as 2026 for a number


def display_path(path: str | Path) -> str:
    """The shortest honest name of a path, for printing: executed notebooks must not name machines."""
    absolute = Path(path).expanduser().absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


def say(text: str) -> None:
    """Print, unless this is not the first of several processes that train together."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` on success, delete it on failure."""
    temporary = path.with_name(f".part-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):  # torch.save, of a full disk
            raise
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise OSError(
            getattr(error, "errno", None) or 0,
            f"{display_path(path)} could not be written: {reason}. Nothing half-written was kept, and what was there before "
            "still is. Free some space, or choose another output_dir",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def publish(made: Path, out_dir: Path, *, names: Sequence[str]) -> None:
    """Move finished files to where they are looked for, in the place of earlier ones.

    The last of the names says that the others are whole: it is the first that goes and the last that comes.

    Args:
        made: folder that holds some of them, on the same disk.
        out_dir: folder to move them to.
        names: all that an earlier run may have left there, relative to it.
    """
    for earlier in reversed(names):
        (out_dir / earlier).unlink(missing_ok=True)
    for name in names:
        if (made / name).exists():
            (out_dir / name).parent.mkdir(exist_ok=True)
            os.replace(made / name, out_dir / name)
