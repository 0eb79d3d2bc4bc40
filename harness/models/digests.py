"""SHA-256 of large files, and checksums of loaded models, kept on disk so that they are computed once.

A digest is kept under the file's path with its size, its inode and the times of its last change; any difference means
that it is computed again. Kept in ``$PEFT_HARNESS_CACHE`` (default ``~/.cache/peft-harness``).
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from harness.record.files import atomic_write_text, file_sha256
from harness.runtime.caches import cache_folder

KEPT_ABOVE = 1 << 20  # bytes; smaller files are read in less time than it takes to look them up
SETTLED_NS = 2_000_000_000  # a file changed this recently may change again within the resolution of its times


def file_digest(path: Path) -> str:
    """SHA-256 of all bytes of a file, in hex. Raises ``OSError``."""
    real = path.resolve()
    found = real.stat()
    # The time of the change of the inode, too: tools that restore a file's own time cannot set it.
    stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return _digest(str(real), stamp)


@cache
def _digest(path: str, stamp: tuple[int, ...]) -> str:
    if stamp[0] < KEPT_ABOVE:
        return file_sha256(Path(path))
    place = _place("digests", path)
    kept = _read(place)
    if kept.get("stamp") == list(stamp):
        return str(kept["sha256"])
    sha256 = file_sha256(Path(path))
    if time.time_ns() - max(stamp[1], stamp[2]) > SETTLED_NS:
        _write(place, {"path": path, "stamp": stamp, "sha256": sha256})
    return sha256


def remember_weights(base_key: str, checksum: str) -> None:
    """Keep the checksum of a base model as it was last loaded under these settings from these files."""
    _write(_place("weights", base_key), {"checksum": checksum})


def known_weights(base_key: str) -> str | None:
    """That checksum; None if it was not loaded on this machine."""
    checksum = _read(_place("weights", base_key)).get("checksum")
    return str(checksum) if checksum else None


def _place(kind: str, name: str) -> Path:
    return cache_folder() / kind / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.json"


def _read(place: Path) -> dict[str, object]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(place: Path, content: dict[str, object]) -> None:
    with suppress(OSError):  # a cache that cannot be written costs time only
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(place, json.dumps(content))
