"""What is written for readers: links that lead somewhere, nothing left to fill in, and claims that the library bears out."""

import json
import re
from itertools import product
from pathlib import Path

import nbformat
import pytest
from test_rooms import ROOMS

from brats_utils.cases.layouts import find_cases
from brats_utils.labels import MSD, REGIONS, SCHEMAS

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
TEXTS = [*sorted(REPOSITORY.glob("README*.md")), *DOCS, *sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
INPUTS = (REPOSITORY / "docs/inference.md").read_text()
TREES = re.findall(r"```text\n(\S+)/\n([^`]*)```\n\nIt prints: `([^`]*)`", INPUTS)


def read_prose(path):
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")


def find_placeholders(text):
    words = re.findall(r"\b(?:XXX|TODO)\b|@@\w+", text)
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


def list_files(tree):
    """Paths of a tree, with `{a,b}` spelt out."""
    for line in tree.split():
        parts = [part.split(",") for part in re.split(r"[{}]", line)]
        yield from map("".join, product(*parts))


def describe(files):
    """A dataset.json such as these files would have."""
    channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    if any("_0000" in file for file in files):
        return {"channel_names": channels, "labels": {name: value for value, name in MSD.tissues.items()}}
    labels = [file for file in files if "label" in file]
    training = [{"image": label.replace("label", "image"), "label": label} for label in labels]
    tests = [file for file in files if file.startswith("imagesTs")]
    return {"modality": channels, "labels": MSD.tissues, "training": training, "test": tests}


@pytest.mark.parametrize(("name", "tree", "said"), TREES, ids=[name for name, *_ in TREES])
def test_a_folder_that_looks_as_the_docs_show_is_found_with_the_line_they_give(name, tree, said, tmp_path, capsys):
    files, folder = list(list_files(tree)), tmp_path / name
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(describe(files)) if file == "dataset.json" else "")
    schema = None if "dataset.json" in files else SCHEMAS[re.search(r"in the (\w+) convention", said)[1]]
    find_cases(folder, schema=schema)
    assert capsys.readouterr().out.strip().endswith(said)


def test_the_table_of_label_conventions_is_that_of_the_library():
    rows = re.findall(r"^\| `(\w+)` \|.*\|([\d, ]+)\|([\d, ]+)\|([\d, ]+)\|$", INPUTS, re.MULTILINE)
    listed = {name: tuple(tuple(map(int, cell.split(","))) for cell in cells) for name, *cells in rows}
    assert [region.name for region in REGIONS] == ["TC", "WT", "ET"]
    assert listed == {name: tuple(map(tuple, map(sorted, s.region_values))) for name, s in SCHEMAS.items()}


def test_the_order_of_imports_in_contributing_is_the_one_that_is_tested():
    line = re.search(
        r"^Imports go one way.*?list.*?: (.*)\.$", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    assert re.findall(r"`(\w+)`", line[1]) == list(ROOMS)
