"""The table in docs/troubleshooting.md: its messages are the library's, and each row has a test."""

import ast
import errno
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_training import make_state

import brats_utils
from brats_utils import colab
from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.inference import predict_logits
from brats_utils.paths import write_text
from brats_utils.phantom.dataset import generate_dataset
from brats_utils.saving.resume import TrainingError, save_on_interrupt
from brats_utils.training import train_step
from brats_utils.transforms import build_cached_transform

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs/troubleshooting.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TABLE.read_text().splitlines()
    if line.startswith("| ") and "::" in line
]


@cache
def read_messages():
    """All text of the library, with what is filled in left out: f-strings come in pieces."""
    pieces = []
    for path in Path(brats_utils.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces.append(node.value)
    return "\n".join(pieces)


@cache
def find_functions(file):
    tree = ast.parse((TESTS / file).read_text())
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[-1].strip("`").partition("::")[2])
def test_row_quotes_the_library_and_names_a_test_that_exists(row):
    symptom, message, cause, cure, test = row
    file, _, name = test.strip("`").partition("::")
    assert name in find_functions(file)
    assert all((symptom, cause, cure))
    messages = read_messages()
    quoted = [text for text in re.findall(r"`([^`]+)`", message) if " " in text and not text.startswith("wandb")]
    assert quoted or "`" not in message or "wandb" in message or "offline" in message
    for text in quoted:
        assert text in messages, f"the library never says {text!r}"


def test_damaged_scans_of_a_data_set_are_named(phantom_dir, tmp_path):
    case = find_cases(phantom_dir)[0]
    cut = tmp_path / "CUT.nii.gz"
    cut.write_bytes(case.images[0].read_bytes()[:5000])
    with pytest.raises(RuntimeError) as wrapped:  # by MONAI; the command line shows the cause
        build_cached_transform(4.0)(Case("CUT", (cut,), case.label, case.label_schema))
    assert re.search(r"CUT\.nii\.gz: cannot be read .* copy or download it again", str(wrapped.value.__cause__))


def test_empty_data_set_is_refused(phantom_dir, tmp_path):
    document = json.loads((phantom_dir / "dataset.json").read_text()) | {"training": []}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(CaseError, match="found no patient, expected one of these layouts"):
        find_cases(tmp_path)


class Greedy(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, image):
        raise self.kind("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_in_a_training_step_names_the_settings_to_lower(kind):
    state = make_state()
    state.model = Greedy(kind)
    batch = {"image": torch.zeros(1, 4, 16, 16, 16), "label": torch.zeros(1, 3, 16, 16, 16, dtype=torch.bool)}
    with pytest.raises(MemoryError, match=r"tried to allocate 9 bytes\. Lower roi_size or batch_size"):
        train_step(state, batch)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_at_prediction_gives_advice_that_can_be_followed(kind):
    with pytest.raises(
        MemoryError, match=r"tried to allocate 9 bytes\. Close other programs.*train with a smaller inference_roi_size"
    ):
        predict_logits(Greedy(kind), torch.zeros(1, 4, 16, 16, 16), roi_size=(16, 16, 16))


def test_a_preset_for_a_gpu_without_one_is_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert colab.choose_preset("full") == "full"
    assert "made for a GPU, found none" in capsys.readouterr().out


def test_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    target = tmp_path / "metrics.json"
    write_text(target, "old")

    def fill_up(self, text, encoding):
        Path.open(self, "w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_up)
    with pytest.raises(OSError, match=r"metrics\.json could not be written: No space left on device"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "in_the_way").write_text("a file")
    with pytest.raises(OSError, match=r"metrics\.json could not be written: .* choose another output_dir"):
        write_text(tmp_path / "in_the_way/metrics.json", "new")
    assert (tmp_path / "in_the_way").read_text() == "a file"


class State:
    """As much of a training as the folder's keeper looks at."""

    history, batch_losses = (), ()

    class accelerator:
        is_main_process = True


HOLD = """
import sys, pathlib
from brats_utils.saving.resume import _lock
with _lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_two_trainings_into_one_folder_are_refused(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        refused = pytest.raises(TrainingError, match="found another training that writes there now")
        with refused, save_on_interrupt(State(), tmp_path, config={}, run_id="a"):
            raise AssertionError("two at once")
    finally:
        other.kill()
        other.communicate()
    for _ in range(2):  # neither one that was killed nor one that ended stands in the way
        with save_on_interrupt(State(), tmp_path, config={}, run_id="a"):
            assert (tmp_path / ".lock").exists()


def test_checkpoints_of_an_earlier_training_are_kept(tmp_path, capsys):
    for expected in ("earlier-1", "earlier-2"):
        (tmp_path / "best.pt").write_text(expected)
        with save_on_interrupt(State(), tmp_path, config={}, run_id="a"):
            assert not (tmp_path / "best.pt").exists()
        assert (tmp_path / expected / "best.pt").read_text() == expected
        assert f"moved them to {tmp_path / expected}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mine.txt", "dataset.json"])
def test_foreign_phantom_folder_is_not_overwritten(tmp_path, name):
    (tmp_path / "phantom").mkdir()
    (tmp_path / "phantom" / name).write_text("[]")
    with pytest.raises(FileExistsError, match="or move this one elsewhere to have it generated again"):
        generate_dataset(tmp_path / "phantom", num_training=3, spacing_mm=6.0, seed=0)
    assert (tmp_path / "phantom" / name).read_text() == "[]"
