"""`make address REPO=name/repository`: every badge and clone command leads to one repository on GitHub."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
NAME = re.compile(r"(?=[^/]{1,39}/)[A-Za-z0-9](?:-?[A-Za-z0-9])*/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
"""Source: GitHub's sign-up page (letters, digits, single hyphens; 39 at most) and its page for a new repository."""
BADGE = re.compile(r"[/.]github(?:\.com)?/([\w.-]+/[\w.-]+)/blob/[\w./-]+/notebooks/\d\d_\w+\.ipynb")
"""The link of a badge, which opens a notebook of ours. The address that it names is the present one."""
NOTE = re.compile(r"<!-- until `make address` -->\r?\n.*?<!-- end -->\r?\n(?:\r?\n)?", re.DOTALL)
"""What a page says as long as the badges lead nowhere; it goes when an address is set."""


def list_tracked(folder: Path) -> list[Path]:
    """Give the files that git tracks.

    Raises:
        ValueError: if the folder is not a git checkout.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True)
    if listed.returncode:
        raise ValueError(
            f"{folder.name}: found no git checkout, expected one. Clone the repository instead of copying it"
        )
    paths = [folder / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def read_texts(folder: Path) -> dict[Path, str]:
    """Read the tracked files that are text, their line ends as they are."""
    texts = {}
    for path in list_tracked(folder):
        try:
            texts[path] = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:  # a picture, or weights
            continue
    return texts


def find_addresses(texts: dict[Path, str]) -> set[str]:
    """Find which repositories the badges name: one, or more after a merge from elsewhere."""
    return {address for text in texts.values() for address in BADGE.findall(text)}


def replace_address(text: str, present: str, new: str) -> str:
    """Replace an address in links, and the folder that a clone command enters."""
    folder, new_folder = present.partition("/")[2], new.partition("/")[2]
    clone = re.compile(rf"(git clone https://github\.com/{re.escape(present)} && cd ){re.escape(folder)}(?![\w.-])")
    text = clone.sub(lambda found: found[1] + new_folder, text)
    link = re.compile(rf"([/.]github(?:\.com)?/){re.escape(present)}(?![\w-]|\.\w)")
    return link.sub(lambda found: found[1] + new, text)


def write_all(texts: dict[Path, str]) -> None:
    """Write files all or none: each is whole under another name before the first takes its place."""
    temporary = {path: path.with_name(f".part-{path.name}") for path in texts}
    try:
        for path, text in texts.items():
            temporary[path].write_bytes(text.encode("utf-8"))
            shutil.copymode(path, temporary[path])
        for path in texts:
            os.replace(temporary[path], path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def set_address(folder: Path, address: str) -> list[Path]:
    """Let every link of the tutorial lead to a repository.

    Args:
        folder: the checkout.
        address: of the repository on GitHub, `name/repository`.

    Returns:
        The files that changed.

    Raises:
        ValueError: if the address is none, or there is nothing to set it in.
    """
    if not NAME.fullmatch(address) or address.endswith(".git"):
        raise ValueError(
            f"REPO: found {address!r}, expected the name of a GitHub account and a repository. "
            "Try: make address REPO=ann/brats-tutorial"
        )
    texts = read_texts(folder)
    found = find_addresses(texts)
    if not found:
        raise ValueError("found no badge that opens a notebook, expected one in each. Take them from git again.")
    changed = {}
    for path, text in texts.items():
        new_text = NOTE.sub("", text) if path.suffix == ".md" else text
        for present in found:
            new_text = replace_address(new_text, present, address)
        if new_text != text:
            changed[path] = new_text
    write_all(changed)
    return sorted(changed)


if __name__ == "__main__":
    try:
        files = set_address(REPOSITORY, sys.argv[1] if len(sys.argv) > 1 else "")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for path in files:
        print(path.relative_to(REPOSITORY))
    print(f"{len(files)} files changed: every link leads to https://github.com/{sys.argv[1]} now.")
