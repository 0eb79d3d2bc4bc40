"""Whether the files of a saved adapter are those that its record lists. Reads bytes only: no torch."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ModelFault
from harness.record.files import file_sha256


def adapter_fault(folder: Path, adapter: Mapping[str, Any]) -> str | None:
    """What is wrong with the adapter in ``folder``, in words; None if it is whole.

    Sizes first, then each file's checksum. A record without checksums is of an earlier version: then the headers of
    the weight files must be readable. Bytes are read once per process, as long as a file does not change.

    Args:
        adapter: as in the record.
    """
    if not folder.is_dir():
        return "it is not there"
    files, hashes = adapter["files"], adapter.get("sha256") or {}
    for name in files:
        try:
            found = (folder / name).stat()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if isinstance(files, Mapping) and found.st_size != files[name]:
            return f"{name} has {found.st_size} bytes instead of {files[name]}"
        fault = _content_fault(folder / name, hashes.get(name), found.st_mtime_ns, found.st_ino)
        if fault:
            return f"{name} {fault}"
    return None


def require_whole(folder: Path, record: Mapping[str, Any]) -> Path:
    """The adapter's folder. Raises ModelFault if its files are not those that the record lists."""
    if not folder.is_dir():
        raise ModelFault(f"run={record['fingerprint']}: {folder} has no adapter; run its command again with rerun=true")
    fault = adapter_fault(folder, record["adapter"])
    if fault:
        raise ModelFault(
            f"run={record['fingerprint']}: the adapter in {folder} is damaged ({fault}); run its command again, which "
            "trains it again"
        )
    return folder


@cache
def _content_fault(file: Path, sha256: str | None, changed_ns: int, inode: int) -> str | None:
    try:
        if sha256 is not None:
            return None if file_sha256(file) == sha256 else "does not match its checksum"
        return None if file.suffix != ".safetensors" or _has_header(file) else "has no readable header"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _has_header(file: Path) -> bool:
    """Whether it begins as a safetensors file does, and ends where its header says."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(stream.read(length)) if length < 2**27 else {}
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, TypeError, KeyError, LookupError):
            return False
    return bool(header) and file.stat().st_size == 8 + length + max(ends, default=0)
