"""The field's words: what the list in CONTRIBUTING rules out stands in no prose, message, docstring or name."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()

GONE = {  # a space also matches a line break, the quotes of a string that goes on, and the underscore of a name
    r"(?:one|single|eight|8|mirrored|same) looks?(?! (?:at|alike|like))": "single pass; TTA with flips",
    r"looks? (?:once|twice|eight times|for each channel)": "single pass; TTA with flips",
    r"looks at eight": "test-time augmentation (TTA) with flips",
    r"in the box(?! (?:around|that|of))": "pretrained network, bundled weights",
    r"(?<![\"'])(?<!holds\s)air": "background",  # in the head phantom, air is a tissue
    r"(?<!one\s)pieces?": "connected component; false positive",
    r"dropped as too small|drops? what|drops (?:tumour|ET)": "removed in post-processing",
    r"(?:other is|mL are|which is) dropped": "removed in post-processing",
    r"clean regions|(?:is|are) cleaned": "post-process",
    r"turn(?:s|ed)? onto|turned to RAS|(?:label|it) was turned|turn volume": "reoriented to the scan's axes",
    r"first (?:random )?weights": "initial weights, initialisation seed",
    r"without one of (?:the|its) four|lost channels?|(?:sequence|channel)s? (?:is|are|was|were) lost": "missing sequence",
    r"numberings?|(?:labels?|tissues?|cysts?) (?:\w+ ){0,2}numbered|numbered (?:as|by|like|apart)": "label convention",
    r"where (?:it is )?present": "over cases in which the region is present",
    r"reader (?:who|that) (?:labelled|drew)|(?:two|second|both|between|expert) readers": "annotator",
    r"kept back": "held out",
    r"invent(?:s|ed|ing)? (?:tumour|lesions?|voxels?)|(?:tumour|lesions?|voxels?) (?:\w+ ){0,2}invented": "false positive",
    r"(?:scans?|files?|heads?|brains?|channels?) (?:\w+ ){0,2}lie on each other": "co-registered, aligned",
    r"cut at (?:one|a) half|(?:is|are|was|were) cut at": "thresholded at",
    r"as (?:it lies|they lie|the files? lies?)(?! (?:in|on|at|there))": "in the file's own orientation",
}

KEYS = r"_where_present|lesions_invented|[\"'`]pieces[\"'`]"
"""Names in files that `predict` and `evaluate` write: other programs read them, so they stay."""

JAPANESE = {
    "腫瘍片": "連結成分",
    "番号の付け方": "ラベル規約",
    "鏡像8通り": "反転によるテスト時拡張（TTA）",
    "1回だけ予測": "TTAなし",
    "取っておいた": "ホールドアウト",
    "同梱のネットワーク": "事前学習済みネットワーク",
}

GAP = r"""[\s_"'#]+(?:f["'])?"""

EVERYDAY = (
    "Look at the picture, and have a look at the worst case; the two look alike.",
    "The box around the brain; what lies in the box around it.",
    "Repair a pair of stairs in a fair hair dryer; pip installs it.",
    "Each in one piece in memory.",
    "table.drop(columns='reason'); dropout; channels dropped while training.",
    "A clean clone; make clean.",
    "The head was turned by 5 degrees; turn it off.",
    "The first epoch sets weights. Seven numbered notebooks; numbers of the label.",
    "ImageSeriesReader is a reader of DICOM; a mask that the reader can switch on.",
    "The cut field of view; cut off at 0; where a tumour is.",
    "As it lies in the folder, as they lie there.",
    'A tissue of the head is "air": what holds air, nose and throat.',
    'removed["pieces"], summary["dice_where_present"], `pieces` in prediction.json',
)


def find_words(text: str, *, gone: dict[str, str] = GONE) -> Iterator[tuple[int, str, str]]:
    """Give line, words found and what the field says, for each place in a text."""
    text = re.sub(KEYS, lambda key: " " * len(key[0]), text)
    for pattern, instead in gone.items():
        loose = pattern.replace(" ", GAP)
        for match in re.finditer(rf"(?<![^\W_])(?:{loose})(?![^\W_])", text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead


def strip_list(text: str) -> str:
    """CONTRIBUTING without its word list, line by line, so that line numbers stay."""
    before, heading, rest = text.partition("## Words\n")
    inside, following, after = rest.partition("\n## ")
    return before + "\n" * (heading + inside).count("\n") + following + after


def read_list() -> list[tuple[str, str]]:
    """The rows of the word list: what is not said, and what is."""
    inside = CONTRIBUTING.partition("## Words\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", inside, re.MULTILINE)
    return [row for row in rows if row[0] != "not this"]


def read_notebooks() -> Iterator[tuple[str, str]]:
    for path in sorted(REPOSITORY.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            yield f"notebooks/{path.name}, cell {cell.id}", cell.source


def read_names_of_tests() -> Iterator[tuple[str, str]]:
    for path in sorted(REPOSITORY.glob("tests/*.py")):
        lines = path.read_text().splitlines()
        names = [line if line.startswith("def test_") else "" for line in lines]  # blank ones keep the line numbers
        yield f"tests/{path.name}", "\n".join(names)


def read_texts(room: str) -> Iterator[tuple[str, str]]:
    """Each text of a room that a person reads, after the place to name in a message."""
    if room == "CONTRIBUTING.md":
        yield room, strip_list(CONTRIBUTING)
    elif room == "notebooks":
        yield from read_notebooks()
    elif room == "tests":
        yield from read_names_of_tests()
    else:
        patterns = {
            "README": ["README*.md"],
            "docs": ["docs/*.md"],
            "brats_utils": ["brats_utils/**/*.py", "brats_utils/**/*.md"],
        }
        for path in sorted(path for pattern in patterns[room] for path in REPOSITORY.glob(pattern)):
            yield str(path.relative_to(REPOSITORY)), path.read_text()


@pytest.mark.parametrize("room", ["README", "CONTRIBUTING.md", "notebooks", "docs", "brats_utils", "tests"])
def test_words_that_only_this_project_uses_are_gone(room: str) -> None:
    found = []
    for place, text in read_texts(room):
        found += [f"{place}:{line}: {words!r}, say: {instead}" for line, words, instead in find_words(text)]
    assert not found, "\n" + "\n".join(found)


def test_japanese_words_that_only_this_project_uses_are_gone() -> None:
    lines = (REPOSITORY / "README.ja.md").read_text().splitlines()
    found = [
        f"README.ja.md:{number}: {word}, say: {instead}"
        for number, line in enumerate(lines, start=1)
        for word, instead in JAPANESE.items()
        if word in line
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("words", "instead"), read_list(), ids=lambda text: text[:30])
def test_each_example_of_the_list_is_found_and_what_it_advises_is_not(words: str, instead: str) -> None:
    for example in words.split("; "):
        assert list(find_words(example)), f"no pattern finds {example!r}"
    assert not list(find_words(instead))


@pytest.mark.parametrize("sentence", EVERYDAY, ids=lambda text: text[:30])
def test_everyday_uses_of_the_same_words_are_no_hits(sentence: str) -> None:
    assert not list(find_words(sentence))


def test_a_hit_is_named_with_its_line_in_names_and_over_line_breaks() -> None:
    text = "def f():\n    regions = clean_regions(mask)\n    # the network in\n    # the box\n"
    assert [(line, words) for line, words, _ in find_words(text)] == [(3, "in # the box"), (2, "clean_regions")]


def test_the_list_itself_is_not_searched() -> None:
    assert list(find_words(CONTRIBUTING))
    assert strip_list(CONTRIBUTING).count("\n") == CONTRIBUTING.count("\n")
