"""What is written for readers: links that lead somewhere, and nothing left to fill in."""

import re
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
TEXTS = [*sorted(REPOSITORY.glob("README*.md")), *DOCS, *sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]


def read_prose(path):
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")


def find_placeholders(text):
    words = re.findall(r"\b(?:XXX|TODO)\b", text)
    return words + [paragraph for paragraph in re.split(r"\n\s*\n", text) if re.fullmatch(r"\s*[A-Z]+\s*", paragraph)]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_local_links_of_the_docs_exist(path):
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text())]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_nothing_is_left_to_fill_in(path):
    assert not find_placeholders(read_prose(path)), "write it, or leave it out"


def test_a_lone_word_in_capitals_and_a_marker_are_placeholders_but_a_file_name_is_none():
    assert find_placeholders("Text.\n\nTABLE\n\nMore XXX.") == ["XXX", "TABLE"]
    assert find_placeholders("A `DIR`, MRI and\nRAS.") == []
