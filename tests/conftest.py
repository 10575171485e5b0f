"""Fixtures for all tests: data to run on, and W&B kept away from its user's account and folders."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import quick
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: a thread each, and in what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

REPOSITORY = Path(__file__).resolve().parents[1]

pytest.register_assert_rewrite("scans")  # so that its asserts show both sides, as those of tests do


def pytest_configure(config: pytest.Config) -> None:
    """Watch the tests that are not marked `slow`."""
    config.pluginmanager.register(quick, "quick")


@pytest.fixture(autouse=True)
def no_wandb_account(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key reaches a test, and nothing that W&B writes leaves a temporary folder; the mode is the test's to choose."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    home = tmp_path_factory.mktemp("wandb")  # not tmp_path, which a test may expect to be empty
    monkeypatch.setenv("NETRC", str(home / "netrc"))  # `wandb login` keeps keys in ~/.netrc
    for kind in ("", "_CONFIG", "_CACHE", "_DATA"):
        folder = home / f"dir{kind.lower()}"
        folder.mkdir()  # W&B falls back to the system's folders where one is missing
        monkeypatch.setenv(f"WANDB{kind}_DIR", str(folder))


@pytest.fixture
def quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chatter, and no mode from outside."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, quiet_wandb: None) -> Iterator:
    """A stand-in for W&B's server that the client takes for the real one; it must have understood all it was asked."""
    import wandb
    from wandb_server import WandbServer

    key = 20 * "b2"
    server = WandbServer(key)
    settings = {"API_KEY": key, "BASE_URL": server.url, "HTTP_TIMEOUT": "1"}
    for client in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):  # do not wait half a minute between attempts
        settings |= {f"X_{client}_RETRY_WAIT_MIN_SECONDS": "0.1", f"X_{client}_RETRY_WAIT_MAX_SECONDS": "0.5"}
    for name, value in settings.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_FINISH_TIMEOUT", raising=False)
    wandb.teardown()
    yield server
    server.connected = True
    if wandb.run is not None:
        wandb.run.finish()
    wandb.teardown()
    server.stop()
    assert not server.unknown


@pytest.fixture
def state() -> object:
    """A small training that has not begun."""
    from tiny_training import make_state

    return make_state()


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, the same one for all processes that test side by side."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def phantom_dir(shared_dir: Path) -> Path:
    """Six labelled synthetic cases at 4 mm, in the layout of MSD; shared by all tests, so do not write into it."""
    from brats_utils.phantom.dataset import generate_dataset  # here, so that tests without data start without torch

    with FileLock(shared_dir / "phantom.lock"):  # the first process generates it, the others find it
        return generate_dataset(shared_dir / "phantom/dataset", num_training=6, spacing_mm=4.0, seed=0)


@pytest.fixture(scope="session")
def patients(phantom_dir: Path) -> list:
    """Scan (4D) and label of two patients, at 4 mm, RAS."""
    import nibabel as nib
    from scans import NAMES

    return [
        tuple(nib.load(phantom_dir / part / f"{name}.nii.gz") for part in ("imagesTr", "labelsTr")) for name in NAMES
    ]


@pytest.fixture(scope="session")
def originals(patients: list, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What is seen of them where nothing is odd."""
    from scans import look, write_msd

    return list(look(write_msd(tmp_path_factory.mktemp("originals"), patients)).values())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network at 4 mm: enough to see that files go in and out, and that some voxels are called tumour."""
    import torch

    from brats_utils.model import build_model
    from brats_utils.saving.checkpoints import Checkpoint, save_checkpoint

    torch.manual_seed(0)
    state = {"optimizer": {}, "schedule": {}, "scaler": {}}
    config = {
        "init_filters": 8,
        "dropout_prob": 0.2,
        "spacing_mm": 4.0,
        "inference_roi_size": [32, 32, 32],
        "label_schema": "msd",
        "dataset_dir": "data/phantom",
        "seed": 0,
    }
    values = {"epoch": 1, "batch_losses": [], "history": [], "mean_dice": 0.1, "best_dice": 0.1, "run_id": "abc"}
    content = Checkpoint(
        model=build_model(init_filters=8, dropout_prob=0.2).state_dict(), config=config, **values, **state
    )
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.pt", content)


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Real scans, `msd/` and `tcga/`, which are not part of the repository."""
    path = Path(os.environ.get("BRATS_REAL_DATA", REPOSITORY.parent / "shared" / "real"))
    if not path.is_dir():
        pytest.skip(f"no real scans in {path}; BRATS_REAL_DATA names another folder")
    return path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused, and give what it says."""
    from brats_utils.commands.cli import main

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, for tests of pages."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        assert "BRATS_REQUIRE_BROWSER" not in os.environ, "BRATS_REQUIRE_BROWSER is set, but there is no Chromium"
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
