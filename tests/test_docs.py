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
CARD = REPOSITORY / "brats_utils/weights/README.md"
SCORED_TEXTS = [*TEXTS[:2], *DOCS, REPOSITORY / "notebooks/05_evaluation.ipynb"]
OTHER_SCORES = {
    ("inference.md", "A sequence missing"): "patients who lack a sequence",
    ("inference.md", "From scan to labels"): "windows of other sizes",
    ("inference.md", "Raw scans"): "scans that `prepare` prepared",
    ("phantom.md", "What helped"): "trainings before the bundled weights",
    ("phantom.md", "Fine-tuning on few patients"): "other weights",
    ("05_evaluation.ipynb", "On your own"): "phantoms",
}
"""Sections whose scores are not those of the pretrained network on patients, and whose they are."""
LAYOUTS = (REPOSITORY / "docs/collections.md").read_text()
TREES = re.findall(r"^\| [^|]+ \| `(\S+)/` \| ([^|]+) \| `([^`|]*)` \|$", LAYOUTS, re.MULTILINE)


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


def find_anchors(path):
    """What a link may name after `#` in a Markdown file: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("path", [*TEXTS, CARD, REPOSITORY / "CHANGELOG.md"], ids=lambda path: path.name)
def test_the_section_that_a_link_names_exists(path):
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", read_prose(path))
    assert not [link for link in links if link[1] not in find_anchors(path.parent / link[0] if link[0] else path)]


def test_the_section_of_the_docs_that_code_names_exists():
    code = "\n".join(path.read_text() for path in (REPOSITORY / "brats_utils").rglob("*.py"))
    links = re.findall(r"docs/(\w+\.md)(?:#([\w-]+))?", code)
    assert any(anchor for _, anchor in links)
    for name, anchor in links:
        assert not anchor or anchor in find_anchors(REPOSITORY / "docs" / name)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_nothing_is_left_to_fill_in(path):
    assert not find_placeholders(read_prose(path)), "write it, or leave it out"


def test_a_lone_word_in_capitals_and_a_marker_are_placeholders_but_a_file_name_is_none():
    assert find_placeholders("Text.\n\nTABLE\n\nMore XXX.") == ["XXX", "TABLE"]
    assert find_placeholders("A `DIR`, MRI and\nRAS.") == []


def test_each_row_of_the_layouts_is_tested():
    (layouts,) = [text for heading, text in split_sections(LAYOUTS) if heading == "Layouts"]
    rows = [line for line in layouts.splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(TREES) > 0


def list_files(tree):
    """Paths of a cell of the table, with `{a,b}` spelt out."""
    for line in re.findall(r"`([^`]+)`", tree):
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
    assert capsys.readouterr().out.strip().endswith(f"{name}: {said}")


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


def split_sections(text):
    """Heading and text of each section; what comes before the first heading has none."""
    parts = re.split(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return list(zip(["", *parts[1::2]], parts[::2], strict=True))


def find_triples(text):
    """Scores and intervals that stand in threes, as those of TC, WT and ET do: `.61, .77 and .53`, or a row of a table."""
    score = r"\.\d{2,3}(?:(?: to |–)\.\d{2,3})?"
    prose = rf"(?<![\d.]){score}(?:(?:, and | and |, | ?/ ?| |、| と ){score})*(?!\d)"
    row = rf"(?<=\| ){score}(?: \| {score})+(?= [|(])"
    plain = text.replace("*", "").replace("`", "")
    runs = [run.replace("–", " to ") for pattern in (prose, row) for run in re.findall(pattern, plain)]
    found = [tuple(re.findall(score, run)) for run in runs]
    return [scores for scores in found if len(scores) == 3]


CARD_TRIPLES = find_triples(CARD.read_text())


@pytest.mark.parametrize("path", SCORED_TEXTS, ids=lambda path: path.name)
def test_scores_of_the_pretrained_network_are_those_of_its_model_card(path):
    for heading, text in split_sections(read_prose(path)):
        if (path.name, heading) not in OTHER_SCORES:
            wrong = [triple for triple in find_triples(text) if triple not in CARD_TRIPLES]
            assert not wrong, f"{path.name}, {heading}: the model card is the source of scores, and has no {wrong}"


@pytest.mark.parametrize("where", OTHER_SCORES, ids=" ".join)
def test_a_section_with_scores_of_other_networks_has_some(where):
    (path,) = [path for path in SCORED_TEXTS if path.name == where[0]]
    (text,) = [text for heading, text in split_sections(read_prose(path)) if heading == where[1]]
    assert set(find_triples(text)) - set(CARD_TRIPLES)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "docs/phantom.md", "notebooks/05_evaluation.ipynb"])
def test_what_to_expect_on_patients_is_what_the_card_says(name):
    row = re.search(r"^\| \*\*56 held-out patients.*$", CARD.read_text(), re.MULTILINE)
    assert find_triples(row[0])[0] in find_triples(read_prose(REPOSITORY / name))


@pytest.mark.parametrize(
    "text",
    [
        ".61, .77 and .53",
        ".61/.77/.53",
        "| **.61** | .77 | .53 (24 with ET) |",
        ".61、.77、.53",
        "| 9 | .61 .77 .53 | .65 |",
        "were .61 .77 .53.",
    ],
)
def test_three_scores_are_found_however_they_are_written(text):
    assert find_triples(text) == [(".61", ".77", ".53")]


def test_three_intervals_are_found_and_four_numbers_or_a_version_are_no_scores():
    assert find_triples("(.54–.67, .72 to .81 and .45–.60)") == [(".54 to .67", ".72 to .81", ".45 to .60")]
    assert not find_triples("| .76 | .42 | .61 | .65 |, 1.61/2.77/3.53, .5 .6 .7")
