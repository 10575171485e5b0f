"""Executes the notebooks in order with papermill, after checking what it was asked for."""

import ast
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from brats_utils.config import ConfigError
from brats_utils.paths import REPOSITORY, display_path, replacing

NOTEBOOKS = ("01_setup", "02_data_viz", "03_train", "04_inference", "05_evaluation", "06_your_scans", "07_raw_scans")


class NotebookError(RuntimeError):
    """A notebook's cell failed."""


class OwnKernel(AsyncKernelManager):
    """Starts the interpreter that runs us, whichever Python's kernel Jupyter would find first under the name `python3`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **settings)


def inspect_parameters(name: str) -> dict[str, Any]:
    """Read the names and default values from the parameters cell of a notebook, such as `03_train`."""
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise NotebookError(
            f"{display_path(path)}: not found. The notebooks are in the repository: start this in its folder."
        )
    found = papermill.inspect_notebook(str(path))
    return {key: ast.literal_eval(entry["default"]) for key, entry in found.items()}


def check_parameters(parameters: Mapping[str, Any], notebooks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Refuse unknown parameters and wrong types; papermill itself only logs the one and ignores the other.

    Gives for each notebook those of the parameters that it has. The `ConfigError` names what was found and expected.
    """
    declared = {name: inspect_parameters(name) for name in notebooks}
    known: dict[str, Any] = {}
    for defaults in declared.values():
        known |= defaults
    for key, value in parameters.items():
        if key not in known:
            raise ConfigError(f"{key}: unknown parameter; {', '.join(notebooks)} have {', '.join(sorted(known))}.")
        if type(value) is not type(known[key]):
            raise ConfigError(
                f"{key}: found {value!r} ({type(value).__name__}), expected {type(known[key]).__name__} such as {known[key]!r}."
            )
    by_notebook = {}
    for name, own in declared.items():
        by_notebook[name] = {key: value for key, value in parameters.items() if key in own}
    return by_notebook


def run_notebooks(
    parameters: Mapping[str, Any], output_dir: Path, *, notebooks: Sequence[str] = NOTEBOOKS
) -> list[Path]:
    """Execute notebooks in order; each leaves its executed copy in the output folder. Gives the paths of the copies.

    A failing notebook leaves its copy too, with the error in place, and stops the run.

    Raises:
        ConfigError: before anything is executed.
        NotebookError: with the failing cell's source and error.
    """
    by_notebook = check_parameters(parameters, notebooks)
    output_dir.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TQDM_DISABLE", "1")  # a bar redrawn a thousand times is noise in a log
    for name in notebooks:
        source = REPOSITORY / "notebooks" / f"{name}.ipynb"
        target = output_dir / f"{name}.ipynb"
        print(f"\n=== {name} -> {display_path(target)}", flush=True)
        start = time.monotonic()
        with replacing(target) as temporary:
            error = _execute(source, temporary, by_notebook[name])
        if error:
            raise NotebookError(
                f"{name}: cell {error.exec_count} failed with {error.ename}: {error.evalue}\n{_causes(error)}"
                f"--- the cell\n{error.source}\n--- the whole traceback is in {display_path(target)}"
            )
        print(f"--- {name}: {time.monotonic() - start:.0f} s", flush=True)
    return [output_dir / f"{name}.ipynb" for name in notebooks]


def _execute(source: Path, temporary: Path, parameters: dict[str, Any]) -> PapermillExecutionError | None:
    temporary.write_bytes(source.read_bytes())
    cwd = str(Path.cwd())  # relative paths start where they do in the shell
    try:
        with chdir(temporary.parent):  # papermill writes both paths into the copy
            papermill.execute_notebook(
                temporary.name,
                temporary.name,
                parameters=parameters,
                kernel_name="python3",
                kernel_manager_class=OwnKernel,
                cwd=cwd,
                progress_bar=False,
                stdout_file=sys.stdout,
                request_save_on_cell_execute=False,
                extra_arguments=["--log-level=50"],  # the kernel's own warnings are not the notebook's
            )
    except PapermillExecutionError as error:
        return error  # of a cell, which is in the copy too
    return None


def _causes(error: PapermillExecutionError) -> str:
    """The errors behind the last one, as in `RuntimeError: applying transform …`, which alone says little."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    lines = re.findall(r"^\w*(?:Error|Exception): .+", text, flags=re.MULTILINE)
    return "".join(f"because of {line}\n" for line in lines if not line.endswith(str(error.evalue)))
