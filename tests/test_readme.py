"""The Japanese README says what the English one says: same sections, commands, links and figures."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ENGLISH, JAPANESE = ((REPOSITORY / name).read_text() for name in ("README.md", "README.ja.md"))


def headings(text):
    return [line.partition(" ")[0] for line in text.splitlines() if re.match(r"#+ ", line) and "`" not in line[:3]]


def commands(text):
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line.partition("  #")[0].rstrip() for block in blocks for line in block.splitlines()]


def prose(text):
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def targets(text):
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def names(text):
    return sorted(re.findall(r"`([^`]+)`", prose(text)))


def decimals(text):
    return re.findall(r"(?<![\w./])\.\d\d", prose(text))


def tables(text):
    """Of each table row, the number of cells and the figures in it, seconds and minutes included."""
    rows = [line for line in prose(text).splitlines() if line.startswith("|")]
    return [(row.count(" | "), re.findall(r"\d+", re.sub(r"`[^`]*`|\([^)]*\)", "", row))) for row in rows]


def minus_words(found):
    """English writes out some small numbers that Japanese gives as figures."""
    return [(cells, sorted(n for n in numbers if int(n) > 10)) for cells, numbers in found]


@pytest.mark.parametrize("part", [headings, commands, targets, names, decimals], ids=lambda part: part.__name__)
def test_both_readmes_have_the_same(part):
    assert part(ENGLISH), "nothing found, so nothing compared"
    assert sorted(part(JAPANESE)) == sorted(part(ENGLISH))


def test_tables_hold_the_same_figures():
    assert minus_words(tables(JAPANESE)) == minus_words(tables(ENGLISH))


def test_pictures_and_local_links_exist():
    local = [target for target in targets(ENGLISH) if not re.match(r"[a-z]+:", target)]
    assert not [target for target in local if not (REPOSITORY / target.partition("#")[0]).exists()]
