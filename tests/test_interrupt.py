import json
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from brats_utils.saving.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "03_train.ipynb"


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(client, source, listen=None):
    reply = client.execute_interactive(source, timeout=120, output_hook=listen or (lambda message: None))
    return reply["content"]


def test_stop_button_saves_and_the_cell_goes_on_when_run_again(kernel, phantom_dir, tmp_path):
    manager, client = kernel
    settings = {"preset": "smoke", "data": str(phantom_dir), "output_dir": str(tmp_path), "wandb_mode": "disabled"}
    settings["overrides"] = {"max_train_epochs": 9, "validation_intervals": 9}

    def press_stop(message):
        if message["msg_type"] == "stream" and "epoch   2" in message["content"]["text"]:
            manager.interrupt_kernel()

    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        if "in tqdm(epochs" not in source:
            assert execute(client, source)["status"] == "ok", source
        else:
            assert execute(client, source, press_stop)["ename"] == "KeyboardInterrupt"
            assert 2 <= load_checkpoint(tmp_path / "checkpoints" / "last.pt").epoch < 9
            assert execute(client, source)["status"] == "ok"
        if "parameters" in cell["metadata"].get("tags", []):
            execute(client, f"globals().update({settings!r})")
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert [row["epoch"] for row in last.history] == list(range(1, 10))
