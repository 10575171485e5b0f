"""One address on GitHub in every badge and clone command, and one command that sets it."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "docs/address.py"


@pytest.fixture(scope="module")
def address():
    spec = importlib.util.spec_from_file_location("address", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(address, tmp_path):
    """A checkout of its own with every tracked file that is text."""
    for path in address.read_texts(REPOSITORY):
        (tmp_path / path.relative_to(REPOSITORY)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(REPOSITORY))
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "--all"], check=True)
    return tmp_path


def read_present(address, folder):
    (present,) = address.find_addresses(address.read_texts(folder))
    return present


def test_all_badges_name_one_repository_and_so_do_the_clone_commands(address):
    present = read_present(address, REPOSITORY)
    texts = {path.relative_to(REPOSITORY).as_posix(): text for path, text in address.read_texts(REPOSITORY).items()}
    for name in ("README.md", "README.ja.md"):
        assert f"git clone https://github.com/{present} && cd {present.partition('/')[2]}\n" in texts[name]
    notebooks = [name for name in texts if name.startswith("notebooks/")]
    assert len(notebooks) >= 7
    for name in notebooks:
        assert f"BRATS_REPO_URL:-https://github.com/{present}}}" in texts[name]


def count_links(address, folder, to):
    """Count the links to a repository, outside the tests, which name some that are made up."""
    texts = address.read_texts(folder)
    return sum(text.count(f"/{to}") for path, text in texts.items() if path.parent.name != "tests")


def test_the_command_sets_all_of_them_and_can_be_given_another_name(address, copy):
    before = read_present(address, copy)
    total = count_links(address, copy, before)
    assert total >= 25, "two badges a page, a clone command in most"
    for new in ("ann/brats", "b-2/monai.tumour_x"):
        changed = address.set_address(copy, new)
        assert {"README.md", "README.ja.md", "07_raw_scans.ipynb"} <= {path.name for path in changed}
        assert read_present(address, copy) == new
        assert count_links(address, copy, new) == total
        assert count_links(address, copy, before) == 0
        before = new


def test_notebooks_keep_their_ids_and_their_formatting(address, copy):
    before = read_present(address, copy)
    address.set_address(copy, "ann/brats")
    for path in sorted((copy / "notebooks").glob("*.ipynb")):
        original = (REPOSITORY / "notebooks" / path.name).read_bytes()
        assert path.read_bytes() == original.replace(before.encode(), b"ann/brats")
        assert json.loads(path.read_text())["cells"]


def test_a_notebook_that_came_from_elsewhere_follows(address, copy):
    path = copy / "notebooks/02_data_viz.ipynb"
    path.write_text(path.read_text().replace(read_present(address, copy), "elsewhere/tutorial"))
    address.set_address(copy, "ann/brats")
    assert read_present(address, copy) == "ann/brats"
    assert "elsewhere/tutorial" not in path.read_text()


def test_links_to_other_repositories_stay(address, copy):
    page = copy / "docs/differences.md"
    kept = "https://github.com/Project-MONAI/tutorials/issues/1355 https://github.com/ann/brats-2"
    page.write_text(f"{kept}\nhttps://github.com/{read_present(address, copy)}/issues.\n")
    address.set_address(copy, "ann/brats")
    address.set_address(copy, "eve/scans")
    assert page.read_text() == f"{kept}\nhttps://github.com/eve/scans/issues.\n"


def test_what_a_page_says_until_there_is_an_address_goes(address, copy):
    page = copy / "docs/differences.md"
    page.write_text("one\n\n<!-- until `make address` -->\nThe badges lead nowhere yet.\n<!-- end -->\n\ntwo\n")
    address.set_address(copy, "ann/brats")
    assert page.read_text() == "one\n\ntwo\n"


ACCOUNTS = ("", "ann", "/brats", "-ann/brats", "a--b/brats", "ann_b/brats", "an n/brats", 40 * "a" + "/brats")
REPOSITORIES = ("ann/", "ann/..", "ann/br&ats", "ann/brats.git", "ann/brats/tree", "https://github.com/ann/brats")


@pytest.mark.parametrize("bad", ACCOUNTS + REPOSITORIES)
def test_what_is_no_address_is_refused_and_nothing_is_written(address, monkeypatch, bad):
    monkeypatch.setattr(address, "write_all", lambda texts: pytest.fail("something was written"))
    message = "found .*, expected the name of a GitHub account and a repository.* Try: make address"
    with pytest.raises(ValueError, match=message):
        address.set_address(REPOSITORY, bad)


def test_a_full_disk_leaves_every_file_as_it_was(address, copy, monkeypatch):
    before, write = address.read_texts(copy), Path.write_bytes

    def write_until_full(path, content):
        if path.name == ".part-05_evaluation.ipynb":
            write(path, content[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        address.set_address(copy, "ann/brats")
    assert address.read_texts(copy) == before
    assert not list(copy.rglob(".part-*"))


def test_a_folder_without_git_is_refused(address, tmp_path):
    with pytest.raises(ValueError, match="found no git checkout, expected one"):
        address.set_address(tmp_path, "ann/brats")


@pytest.mark.slow
@pytest.mark.parametrize(("repo", "code"), [("ann/brats", 0), ("ann/brats; touch broken", 2)])
def test_make_hands_it_over_as_it_was_typed(copy, repo, code):
    command = ["make", "address", f"PYTHON={sys.executable}", f"REPO={repo}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment)
    assert done.returncode == code
    assert ("every link leads to https://github.com/ann/brats now" in done.stdout) == (code == 0)
    assert ("error: REPO: found 'ann/brats; touch broken'" in done.stderr) == (code != 0)
    assert not (copy / "broken").exists()


def test_until_there_is_an_address_both_readmes_say_how_to_do_without(address):
    if read_present(address, REPOSITORY).startswith("OWNER/"):
        for name in ("README.md", "README.ja.md"):
            assert address.NOTE.search((REPOSITORY / name).read_text())
