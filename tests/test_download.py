import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from functools import partial

import pytest

from brats_utils.cases.download import DownloadError, download_msd


@pytest.fixture
def served(tmp_path):
    """A folder served on a loopback port: (folder, its URL)."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    cut_at = None

    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        if self.cut_at is None:
            return super().copyfile(source, outputfile)
        outputfile.write(source.read(self.cut_at))  # the header has promised more
        self.close_connection = True
        return None


def write_archive(path, names=("Task01_BrainTumour/dataset.json", "Task01_BrainTumour/imagesTr/a.nii.gz")):
    content = json.dumps({"padding": "x" * 10_000}).encode()
    with tarfile.open(path, "w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def download(served, tmp_path, md5):
    source = {"MSD_URL": f"{served[1]}/task.tar", "MSD_MD5": md5, "MSD_ARCHIVE_BYTES": 50_000}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in source.items():
            patch.setattr(f"brats_utils.cases.download.{name}", value)
        return download_msd(tmp_path / "data/Task01_BrainTumour")


def left_behind(tmp_path):
    return sorted(path.name for path in (tmp_path / "data").iterdir())


def test_archive_is_fetched_verified_and_extracted_whole(served, tmp_path):
    folder = download(served, tmp_path, write_archive(served[0] / "task.tar"))
    assert (folder / "imagesTr/a.nii.gz").is_file()
    assert left_behind(tmp_path) == ["Task01_BrainTumour"]


def test_second_call_downloads_nothing(served, tmp_path):
    md5 = write_archive(served[0] / "task.tar")
    download(served, tmp_path, md5)
    (served[0] / "task.tar").unlink()
    assert download(served, tmp_path, md5).is_dir()


def test_wrong_checksum_is_refused_and_nothing_left(served, tmp_path):
    write_archive(served[0] / "task.tar")
    with pytest.raises(DownloadError, match="does not match its checksum"):
        download(served, tmp_path, "0" * 32)
    assert left_behind(tmp_path) == []


def test_broken_download_leaves_nothing_and_the_next_one_succeeds(served, tmp_path, monkeypatch):
    md5 = write_archive(served[0] / "task.tar")
    monkeypatch.setattr(QuietHandler, "cut_at", 1000)
    with pytest.raises(DownloadError, match="Nothing half-written was kept"):
        download(served, tmp_path, md5)
    assert left_behind(tmp_path) == []
    monkeypatch.undo()
    assert download(served, tmp_path, md5).is_dir()


def test_no_server_is_said_in_plain_words(tmp_path):
    with pytest.raises(DownloadError, match="data='phantom'"):
        download((None, "http://127.0.0.1:9"), tmp_path, "0" * 32)


def test_archive_that_climbs_out_is_refused(served, tmp_path):
    md5 = write_archive(served[0] / "task.tar", names=("Task01_BrainTumour/dataset.json", "../../evil.txt"))
    with pytest.raises(DownloadError, match="not a usable archive"):
        download(served, tmp_path, md5)
    assert not (tmp_path / "evil.txt").exists()
    assert left_behind(tmp_path) == []


def test_interrupted_extraction_is_not_taken_for_whole_and_costs_no_second_download(served, tmp_path, monkeypatch):
    md5 = write_archive(served[0] / "task.tar")
    monkeypatch.setattr("brats_utils.cases.download.extractall", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(served, tmp_path, md5)
    assert left_behind(tmp_path) == ["Task01_BrainTumour.tar"]
    monkeypatch.undo()
    (served[0] / "task.tar").unlink()
    assert download(served, tmp_path, md5).is_dir()


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_too_small_a_disk_is_refused_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DownloadError, match=r"0\.0 GB free .* expected 0\.0 GB"):
        download((None, "http://127.0.0.1:9"), tmp_path, "0" * 32)
