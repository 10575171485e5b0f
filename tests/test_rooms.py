"""Imports go one way, so that a room can be understood from those before it alone."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import brats_utils

LIBRARY = Path(brats_utils.__file__).parent
ROOMS = (
    *(
        "labels",
        "drive",
        "paths",
        "memory",
        "colab",
        "config",
        "phantom",
        "cases",
        "project",
        "bias_field",
        "transforms",
        "loading",
        "model",
        "saving",
    ),
    *(
        "uncertainty",
        "metrics",
        "post_processing",
        "inference",
        "threads",
        "training",
        "report",
        "evaluation",
        "tables",
        "connection",
        "tracking",
        "artifacts",
        "patients",
        "raw",
    ),
    "commands",
)
OUTSIDE = {"__init__", "__main__"}
"""The front door: imports what it starts."""

HOUSE = (LIBRARY.parent / "CONTRIBUTING.md").read_text().partition("## The house")[2].partition("\n## ")[0]

MODULES = {
    path.relative_to(LIBRARY).with_suffix("").as_posix().replace("/", "."): path for path in LIBRARY.rglob("*.py")
}


def room_of(module):
    return module.partition(".")[0]


def find_imports(module):
    """Modules of the library that are imported, also inside a function, by their names within it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "brats_utils":
            assert node.level == 0
            home = node.module.partition(".")[2]
            names = [".".join(filter(None, (home, alias.name))) for alias in node.names]
            found |= {name if name in MODULES else home for name in names}
        assert not (isinstance(node, ast.Import) and "brats_utils" in ast.unparse(node)), "import names from modules"
    return found


def test_every_module_has_its_room_and_every_room_its_module():
    assert {room_of(module) for module in MODULES} - OUTSIDE == set(ROOMS)


@pytest.mark.parametrize("module", sorted(set(MODULES) - OUTSIDE))
def test_a_module_imports_from_its_own_room_and_those_before_it(module):
    before = ROOMS[: ROOMS.index(room_of(module)) + 1]
    assert {room_of(imported) for imported in find_imports(module)} <= set(before)


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter({module: find_imports(module) for module in MODULES}).prepare()  # CycleError names the circle


def test_contributing_lists_the_rooms_in_this_order():
    (listed,) = re.findall(r"`tests/test_rooms\.py` holds that: (.*)\.", HOUSE)
    assert re.findall(r"`(\w+)`", listed) == list(ROOMS)


def test_the_files_that_contributing_names_exist():
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", HOUSE):
        homes = LIBRARY, LIBRARY.parent
        assert any((home / name).exists() for home in homes), f"CONTRIBUTING.md names {name}"
