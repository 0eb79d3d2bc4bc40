"""What W&B left of its runs, read from its own files."""

import struct
import time
from pathlib import Path


def records(file: Path):
    """Records of an offline run: LevelDB's log format after a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block is padding
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + length > len(data):  # W&B's own process is still writing it
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def closed(file: Path) -> list:
    """All records, once the last is there: W&B's own process writes it some milliseconds after ``finish``."""
    deadline = time.monotonic() + 20
    while True:
        seen = list(records(file))
        if any(record.HasField("exit") for record in seen):
            return seen
        assert time.monotonic() < deadline, f"{file} was never closed"
        time.sleep(0.01)


def items(updates) -> dict[str, str]:
    return {item.key or "/".join(item.nested_key): item.value_json for item in updates}


def offline_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))
