"""The tutorial opened in Colab, rehearsed: Colab's packages, a stub of `google.colab`, an empty folder, a local clone.

Not rehearsed: Python 3.13, the GPU, and torch 2.11 for CUDA, in whose place stands
the build that the tests use, with the setuptools that it asks for.
"""

import json
import os
import shutil
import subprocess
import sys
import types
import venv
from pathlib import Path

import nbclient
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from brats_utils import colab, drive
from brats_utils.paths import resolve_path

REPOSITORY = Path(__file__).resolve().parents[1]
LISTED = REPOSITORY / "tests/data/colab_preinstalled.txt"
SHIPPED = [
    "accelerate",
    "ipykernel",
    "ipython",
    "joblib",
    "matplotlib",
    "nibabel",
    "numpy",
    "pandas",
    "pillow",
    "psutil",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "setuptools",
    "tqdm",
    "wandb",
    "nbformat",
    "nbclient",
    "requests",
    "tenacity",
    "lxml",
    "click",
]
"""Of what Colab ships, the packages that ours ask for, directly or not."""
NOTEBOOKS = ("01_setup", "02_data_viz", "03_train", "04_inference", "05_evaluation")
KEY = "0123456789abcdef" * 2 + "deadbeef"

STUB = {
    "google/colab/__init__.py": "",
    "google/colab/userdata.py": "class SecretNotFoundError(Exception): pass\n\ndef get(name): raise SecretNotFoundError(name)\n",
    "google/colab/drive.py": "def mount(path): raise AssertionError('nobody asked for the Drive')\n",
    "sitecustomize.py": "import google.colab\n",  # Colab's kernel has it loaded from the start
}


def run(*command, **settings):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment that holds what Colab ships, of what concerns us."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    pins = [
        line
        for line in LISTED.read_text().splitlines()
        if "==" in line and not line.startswith(("#", "torch", "setuptools"))
    ]
    (folder / "pins.txt").write_text("\n".join(pins))
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",  # most modules are never imported
        "--disable-pip-version-check",
        "--constraint",
        folder / "pins.txt",
    ]
    probe = subprocess.run([*map(str, pip), "setuptools"], capture_output=True, text=True)
    if probe.returncode and "No matching distribution" in probe.stderr:
        pytest.skip("no package registry within reach")
    run(*pip, *SHIPPED, f"torch=={torch.__version__.partition('+')[0]}")
    return python


@pytest.fixture(scope="module")
def repository_url(tmp_path_factory):
    """A bare clone of the working tree as it is, committed or not."""
    folder = tmp_path_factory.mktemp("origin")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).split("\0")
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (folder / "work" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / "work" / name)
    git = ["git", "-C", folder / "work", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    run("git", "init", "--quiet", "--initial-branch", "main", folder / "work")
    run(*git, "add", "--all")
    run(*git, "commit", "--quiet", "--message", "as it is")
    run("git", "clone", "--quiet", "--bare", folder / "work", folder / "bare.git")
    return (folder / "bare.git").as_uri()


def execute(name, home, environment):
    """Run one notebook as Colab does: alone in its folder, on Colab's interpreter."""
    notebook = load_notebook_node(str(REPOSITORY / f"notebooks/{name}.ipynb"))
    notebook = parameterize_notebook(notebook, {"preset": "smoke", "output_dir": "runs/colab"})
    client = nbclient.NotebookClient(
        notebook, kernel_name="colab", timeout=400, resources={"metadata": {"path": str(home)}}
    )
    client.execute(env=environment)
    return notebook


def freeze(python):
    return set(run(python, "-m", "pip", "freeze", "--exclude-editable", "--disable-pip-version-check").splitlines())


@pytest.mark.slow(minutes=4)
def test_all_notebooks_run_in_an_empty_folder_and_change_no_package(
    python, repository_url, tmp_path, capsys, monkeypatch
):
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Colab"}
    (tmp_path / "jupyter/kernels/colab").mkdir(parents=True)
    (tmp_path / "jupyter/kernels/colab/kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for path, text in STUB.items():
        (tmp_path / "stub" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stub" / path).write_text(text)
    home = tmp_path / "content"
    home.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "PYTHON", "VIRTUAL"))
    }
    environment |= {"PYTHONPATH": str(tmp_path / "stub"), "BRATS_REPO_URL": repository_url, "HOME": str(tmp_path)}
    before = freeze(python)
    outputs = {name: execute(name, home, environment) for name in NOTEBOOKS}
    after = freeze(python)
    assert before <= after, f"Colab's own packages changed: {sorted(before - after)}"
    added = sorted(line.partition("==")[0] for line in after - before)
    assert json.loads((home / "runs/colab/metrics.json").read_text())["preset"] == "smoke"
    assert sorted(path.name for path in home.iterdir()) == ["brats", "data", "runs"]
    printed = "".join(
        output.get("text", "") for cell in outputs["01_setup"].cells for output in cell.get("outputs", ())
    )
    assert "no WANDB_API_KEY" in printed
    assert "offline" in printed
    with capsys.disabled():
        print(f"\nIn Colab {len(before)} packages stayed as they were; added: {', '.join(added)}")


def test_an_installation_that_failed_is_done_again(monkeypatch):
    asked, installed = [], []

    def run(command, *, check):
        asked.append("package" if "--editable" in command else "requirements")
        if len(asked) == 1:
            raise subprocess.CalledProcessError(1, "pip")
        if asked[-1] == "package":
            installed.append("brats-utils")

    monkeypatch.setattr(colab, "IN_COLAB", True)
    monkeypatch.setattr(colab, "read_secret", lambda: None)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(colab.metadata, "distributions", lambda name: iter(installed))
    with pytest.raises(subprocess.CalledProcessError):
        colab.set_up()
    for _ in range(2):
        colab.set_up()
    assert asked == ["requirements", "requirements", "package"]


@pytest.mark.parametrize(("started", "ends"), [("notebooks", "."), ("runs/x", "."), ("elsewhere", "elsewhere")])
def test_notebooks_work_in_the_folder_of_the_repository(monkeypatch, tmp_path, started, ends):
    for folder in ("notebooks", "runs/x", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        if folder != "elsewhere":
            (tmp_path / folder / "01_setup.ipynb").touch()
    monkeypatch.setattr(colab, "REPOSITORY", tmp_path)
    monkeypatch.chdir(tmp_path / started)
    colab.set_up()
    assert Path.cwd() == (tmp_path / ends).resolve()


def test_a_secret_reaches_wandb_and_no_output(monkeypatch, capsys):
    stub = types.ModuleType("google.colab")
    stub.userdata = types.SimpleNamespace(get={"WANDB_API_KEY": KEY}.__getitem__)
    monkeypatch.setitem(sys.modules, "google.colab", stub)
    colab.read_secret("WANDB_API_KEY")
    assert os.environ["WANDB_API_KEY"] == KEY
    monkeypatch.delenv("WANDB_API_KEY")
    colab.read_secret("OTHER")
    assert "OTHER" not in os.environ
    printed = capsys.readouterr().out
    assert "no OTHER (KeyError)" in printed
    assert KEY not in printed


def test_drive_is_mounted_in_colab_and_refused_elsewhere(monkeypatch):
    with pytest.raises(OSError, match="found no Google Drive"):
        resolve_path("drive:brats/checkpoints")
    mounted = []
    stub = types.ModuleType("google.colab")
    stub.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", stub)
    monkeypatch.setattr(drive, "IN_COLAB", True)
    assert resolve_path("drive:brats/checkpoints") == Path("/content/drive/MyDrive/brats/checkpoints")
    assert mounted == ["/content/drive"]


@pytest.mark.parametrize(
    ("in_colab", "memory_gb", "expected"),
    [(False, 15, "laptop"), (True, 0, "laptop"), (True, 15, "colab"), (True, 80, "full")],
    ids=["elsewhere", "no GPU", "T4", "A100"],
)
def test_auto_takes_the_preset_that_suits_the_gpu(monkeypatch, capsys, in_colab, memory_gb, expected):
    properties = types.SimpleNamespace(total_memory=memory_gb * 2**30)
    monkeypatch.setattr(colab, "IN_COLAB", in_colab)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: memory_gb > 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert colab.choose_preset("auto") == expected
    assert f"preset: {expected}" in capsys.readouterr().out


def test_a_preset_that_was_asked_for_is_kept(capsys):
    assert colab.choose_preset("smoke") == "smoke"
    assert not capsys.readouterr().out
