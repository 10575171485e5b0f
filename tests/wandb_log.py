"""Reads what an offline run wrote, record by record."""

import json
import time
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32 * 1024, 7


def run_folder(output_dir: Path) -> Path:
    """The folder of the one offline run below an output folder."""
    (folder,) = (output_dir / "wandb").glob("offline-run-*")
    return folder


def read_records(folder: Path) -> list[Record]:
    """Read a run folder, once it is complete: `finish()` may return a little before the last record is written."""
    (path,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 10
    while True:
        records = parse_records(path.read_bytes())
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < deadline, f"{path.name} has no exit record after 10 s"
        time.sleep(0.05)


def parse_records(data: bytes) -> list[Record]:
    """Parse a LevelDB log: 32 KiB blocks of records (checksum, length, type, payload), after a 7-byte file header."""
    position, payload, records = HEADER, b"", []
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # too little left in this block for a record
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        payload += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if position > len(data):
            break
        if kind in (1, 4):  # full, or the last part
            records.append(Record.FromString(payload))
            payload = b""
    return records


def read_history(records: list[Record]) -> list[dict]:
    """Collect the rows given to `run.log`."""
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            rows.append({(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item})
    return rows


def read_artifacts(records: list[Record]) -> list:
    """Collect the artifacts logged."""
    logged = [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")]
    return logged + [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
