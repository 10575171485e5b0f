"""The files that name dependencies agree, and nothing tracked belongs to one machine or person."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

FORBIDDEN = {
    "a path of a machine": r"(?<![\w.~$}/-])/(?:work|farm|root|opt|home/\w+|Users/\w+)/",
    "a package registry's host": r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|deb\.debian\.org"
    r"|download\.pytorch\.org|conda\.anaconda\.org)|https?://\S+/simple\b",
    "a key": r"(?i:key|token|secret|password)[\"'\]\s:=]{1,6}[0-9a-f]{40}\b|\bwandb_v1_\w{20}|\bghp_\w{36}|\bhf_\w{30}"
    r"|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY",
}


def read_requirements(path: str) -> list[Requirement]:
    lines = ((REPOSITORY / path).read_text()).splitlines()
    return [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]


def by_name(requirements: list[Requirement]) -> dict[str, list[Requirement]]:
    """Requirements by normalised name; constraints may pin one package twice, by Python version."""
    found: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def declared(*extras: str) -> list[Requirement]:
    return [
        Requirement(line) for line in PROJECT["dependencies"] + [entry for extra in extras for entry in EXTRAS[extra]]
    ]


def pinned_version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    return specifier.version


def repository_files() -> list[Path]:
    """Files that are tracked, or would be by `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


@pytest.mark.parametrize("requirement", declared(*EXTRAS), ids=lambda requirement: requirement.name)
def test_declared_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pins = by_name(read_requirements("constraints.txt")).get(canonicalize_name(requirement.name))
    assert pins, f"constraints.txt lacks {requirement.name}; run `make constraints`"
    for pin in pins:
        assert pinned_version(pin) in requirement.specifier, (
            f"{pin} does not satisfy {requirement}; run `make constraints`"
        )


def test_constraints_hold_pins_alone() -> None:
    assert all(pinned_version(pin) for pin in read_requirements("constraints.txt"))


def test_conda_installs_what_make_installs() -> None:
    dependencies = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", "-e .[notebooks,raw,dev]"]
    assert (
        " ".join(pip).replace("-e .[notebooks,raw,dev]", "-e '.[notebooks,raw,dev]'")
        in (REPOSITORY / "Makefile").read_text()
    )
    assert "python=3.11" in dependencies
    assert "pip" in dependencies


def test_colab_requirements_are_what_colab_lacks() -> None:
    shipped = by_name(read_requirements("tests/data/colab_preinstalled.txt"))
    lacking = set(by_name(declared("raw"))) - set(shipped)
    assert set(by_name(read_requirements("colab_requirements.txt"))) == lacking


def test_colab_requirements_satisfy_what_is_declared() -> None:
    wanted = by_name(declared("raw"))
    for name, (pin,) in by_name(read_requirements("colab_requirements.txt")).items():
        assert pinned_version(pin) in wanted[name][0].specifier


def test_what_colab_ships_satisfies_what_is_declared() -> None:
    shipped = by_name(read_requirements("tests/data/colab_preinstalled.txt"))
    for name, (requirement,) in by_name(declared("raw")).items():
        for pin in shipped.get(name, []):
            assert pinned_version(pin) in requirement.specifier, f"Colab ships {pin}, which {requirement} refuses"


def test_citation_names_the_version() -> None:
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == PROJECT["version"]


def imported_modules(folder: Path) -> Iterator[tuple[str, str]]:
    """File name and top-level module of each import, in Python files and in notebooks' code cells."""
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.ipynb")]):
        source = path.read_text()
        if path.suffix == ".ipynb":
            cells = json.loads(source)["cells"]
            source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield path.name, node.module.partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("brats_utils", []), ("notebooks", ["notebooks"]), ("tests", ["notebooks", "raw", "dev"])],
)
def test_every_import_is_declared(folder: str, extras: list[str]) -> None:
    names = set(by_name(declared(*extras)))
    installed = importlib.metadata.packages_distributions()
    known = {
        *sys.stdlib_module_names,
        "brats_utils",
        "benchmarks",
        "google",
        "kaggle_secrets",
    }  # the last two: in Colab and Kaggle alone
    known |= {path.stem for path in (REPOSITORY / folder).glob("*.py")}
    undeclared = {
        f"{module} in {file}"
        for file, module in imported_modules(REPOSITORY / folder)
        if module not in known and not names & {canonicalize_name(name) for name in installed.get(module, [])}
    }
    assert not undeclared, "not in pyproject.toml"


def test_no_file_but_the_pretrained_network_is_over_1_mb() -> None:
    assert [path.name for path in repository_files() if path.stat().st_size > 1_000_000] == ["pretrained.safetensors"]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in repository_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{path.relative_to(REPOSITORY)}: {match[0]}" for match in re.finditer(FORBIDDEN[what], text)]
    assert not found, f"{what} does not belong into the repository"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a path of a machine", " ".join(["cp", "/ho" + "me/ann/scan.nii.gz", "."])),
        ("a package registry's host", "--index-url https://example.org/" + "simple"),
        ("a key", "WANDB_API_" + "KEY=" + 20 * "a1"),
    ],
)
def test_what_is_forbidden_is_recognised(what: str, text: str) -> None:
    assert re.search(FORBIDDEN[what], text)
