"""Values that no record could hold, and paths that no file system could, whatever they mean."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.config.schema import Stage
from harness.errors import brief
from harness.frozen import ConfigNode

NAME_BYTES = 255  # of one file name, on every common file system

PATH_BYTES = 4095  # of a whole path, on Linux

# s3://bucket/runs, https://host/rows.jsonl, file:///data; a drive of Windows has one letter.
_ADDRESS = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/")
WRITTEN = ("runs_dir", "report.runs_dirs", "archive.dir", "bundle.dir")  # folders of runs


def value_faults(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Key and fault of every number that is not finite or exceeds 64 bits, and of every text that is not UTF-8."""
    if isinstance(value, ConfigNode):
        for name, item in vars(value).items():
            yield from value_faults(f"{key}.{name}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from value_faults(key, name)
            yield from value_faults(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from value_faults(f"{key}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{key}={value} must be a finite number"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"{key}={brief(str(value))} does not fit into 64 bits; use a smaller number"
    elif isinstance(value, str) and not is_text(value):
        yield key, f"{key}={brief(ascii(value))} is not UTF-8 text without NUL; write it in UTF-8"


def is_text(value: str) -> bool:
    """Whether the text can be encoded, hashed and passed to the file system."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # the shell passed bytes that are not UTF-8
        return False


def texts(value: Any) -> bool:
    """Whether the value is a text, a list of texts, or null."""
    return (
        value is None
        or isinstance(value, str)
        or (isinstance(value, list) and all(isinstance(each, str) for each in value))
    )


def path_faults(key: str, path: str) -> Iterator[str]:
    """Why no file can have this name, whatever is on the disk."""
    if not is_text(path):  # ``value_faults`` reports it
        return
    if any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
        yield f"{key}={brief(path)} has a part of more than {NAME_BYTES} bytes; use a shorter name"
    elif len(path.encode()) > PATH_BYTES:
        yield f"{key}={brief(path)} has more than {PATH_BYTES} bytes; use a shorter path"
    yield from _address_faults(key, path)
    if path.startswith("~") and os.path.expanduser(path) == path:
        yield f"{key}={brief(path)} starts with the home of an unknown user; write out the path"


def unwritable_folder(runs_dir: str, stage: Stage) -> Iterator[str]:
    """Why records cannot be written there; stages that only read accept a folder that is read-only."""
    wanted = Path(runs_dir).expanduser().absolute()
    place = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not place.is_dir():
        yield f"runs_dir={runs_dir} cannot be created: {place} is not a folder; name another folder"
    elif stage in (Stage.run, Stage.score, Stage.import_results) and not os.access(place, os.W_OK | os.X_OK):
        yield f"runs_dir={runs_dir} cannot be written: no permission in {place}; name another folder"


def _address_faults(key: str, path: str) -> Iterator[str]:
    """Paths are of this machine; an address would become a folder of that name here."""
    found = _ADDRESS.match(path)
    if found is None:
        return
    scheme = found["scheme"].lower()
    if scheme == "file":
        remedy = f"write {key}={path.partition(':')[2].replace('///', '/') or '/'}"
    elif key in WRITTEN:
        remedy = (
            "records and locks need atomic renames of folders, which object stores lack: use a folder of this "
            "machine or of a shared file system, and copy finished runs (docs/object_storage.md)"
        )
    elif key in ("model.path", "data.path", "adapter_path"):
        remedy = "name a local path, or what is on the hub as org/name; copy anything else here first"
    else:
        remedy = "use a path of this machine, and copy from or to there (docs/object_storage.md)"
    yield f"{key}={brief(path)} is an address ({scheme}), not a path of this machine; {remedy}"
