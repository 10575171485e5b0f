import json
import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from brats_utils.commands import run as runner
from brats_utils.commands.run import NotebookError, check_parameters, run_notebooks
from brats_utils.config import ConfigError


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Two tiny notebooks in place of the tutorial's; the second one fails if told to."""
    monkeypatch.setattr(runner, "REPOSITORY", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, code in (("01_a", "print('hello from', preset)"), ("02_b", "if fail:\n    raise ValueError('no luck')")):
        parameters = new_code_cell(
            'preset: str = "laptop"  # which\nfail: bool = False  # whether\nepochs: int = 3  # how many'
        )
        parameters.metadata["tags"] = ["parameters"]
        notebook = new_notebook(cells=[parameters, new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    return ("01_a", "02_b")


def test_unknown_parameter_is_refused_and_the_known_ones_named(notebooks):
    with pytest.raises(ConfigError, match="prset: unknown parameter; 01_a, 02_b have epochs, fail, preset"):
        check_parameters({"prset": "smoke"}, notebooks)


def test_notebooks_that_are_not_there_are_said_to_be_in_the_repository(notebooks):
    with pytest.raises(NotebookError, match=r"03_c\.ipynb: not found\. The notebooks are in the repository"):
        check_parameters({}, [*notebooks, "03_c"])


@pytest.mark.parametrize(("name", "value"), [("epochs", "3"), ("epochs", True), ("preset", 3), ("fail", "no")])
def test_wrong_type_is_refused(notebooks, name, value):
    with pytest.raises(ConfigError, match=f"{name}: found .* expected"):
        check_parameters({name: value}, notebooks)


@pytest.mark.slow
def test_notebooks_run_in_order_with_their_parameters(notebooks, tmp_path, capfd):
    executed = run_notebooks({"preset": "smoke"}, tmp_path / "out", notebooks=notebooks)
    assert [path.name for path in executed] == ["01_a.ipynb", "02_b.ipynb"]
    assert "hello from smoke" in capfd.readouterr().out
    assert "hello from smoke" in executed[0].read_text()


@pytest.mark.slow
def test_failing_cell_stops_the_run_in_plain_sight(notebooks, tmp_path):
    with pytest.raises(NotebookError, match=r"02_b: cell .* failed with ValueError: no luck") as error:
        run_notebooks({"fail": True}, tmp_path / "out", notebooks=notebooks)
    assert "raise ValueError('no luck')" in str(error.value)
    assert "no luck" in (tmp_path / "out/02_b.ipynb").read_text()


def test_nothing_is_executed_when_a_parameter_is_wrong(notebooks, tmp_path):
    with pytest.raises(ConfigError):
        run_notebooks({"epochs": "many"}, tmp_path / "out", notebooks=notebooks)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """What another Python leaves under the name `python3` where Jupyter looks first; that Python is gone by now."""
    spec = {"argv": [str(tmp_path / "gone/bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({**spec, "display_name": "Old", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


@pytest.mark.slow
def test_notebooks_run_on_the_python_that_starts_them_whatever_kernel_another_has_left(
    notebooks, foreign_kernel, tmp_path, capfd
):
    (executed,) = run_notebooks({}, tmp_path / "out", notebooks=notebooks[:1])
    assert "hello from laptop" in capfd.readouterr().out
    assert nbformat.read(executed, 4).metadata["kernelspec"]["name"] == "python3"


@pytest.mark.slow
def test_output_on_another_drive_than_the_notebooks_is_written_and_names_no_machine(notebooks, tmp_path, monkeypatch):
    def refuse(path, start=None):  # as Windows does from one drive to another
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", refuse)
    (executed,) = run_notebooks({}, tmp_path / "{out}", notebooks=notebooks[:1])
    assert tmp_path.name not in executed.read_text()
