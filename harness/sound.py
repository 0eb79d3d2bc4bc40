"""Values that nothing could compute with, hash or write down, and paths that no file system could hold."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.keys import brief
from harness.schema import Stage
from harness.settings import Settings

NAME_BYTES = 255  # of one file name, on every common file system
PATH_BYTES = 4095  # of a whole path, on Linux


def faults(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Key and fault of every number that is not finite or too large, and of every text that is no text."""
    if isinstance(value, Settings):
        for name, item in vars(value).items():
            yield from faults(f"{key}.{name}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from faults(key, name)
            yield from faults(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(f"{key}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{key}={value} must be a finite number"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"{key}={brief(str(value))} does not fit into 64 bits; use a smaller number"
    elif isinstance(value, str) and not is_text(value):
        yield key, f"{key}={brief(ascii(value))} holds bytes that are no UTF-8 text; write it in UTF-8, without NUL"


def is_text(value: str) -> bool:
    """Whether the text can be encoded, hashed and passed to the file system."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # the shell passed bytes that are not UTF-8
        return False


def path_faults(key: str, path: str) -> Iterator[str]:
    """Why no file can have this name, whatever is on the disk."""
    if not is_text(path):  # said by ``faults``
        return
    if any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
        yield f"{key}={brief(path)} has a part of more than {NAME_BYTES} bytes; use a shorter name"
    elif len(path.encode()) > PATH_BYTES:
        yield f"{key}={brief(path)} has more than {PATH_BYTES} bytes; use a shorter path"
    if path.startswith("~") and os.path.expanduser(path) == path:
        yield f"{key}={brief(path)} names the home of an unknown user; write the path out"


def unwritable(runs_dir: str, stage: Stage) -> Iterator[str]:
    """Why records cannot be made there; stages that only read need no more than a folder."""
    wanted = Path(runs_dir).expanduser().absolute()
    place = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not place.is_dir():
        yield f"runs_dir={runs_dir} cannot be made: {place} is no folder; name another place"
    elif stage in (Stage.run, Stage.report, Stage.score) and not os.access(place, os.W_OK | os.X_OK):
        yield f"runs_dir={runs_dir} cannot be written: no permission in {place}; name another place"


def at_least(key: str, value: float | None, low: float) -> Iterator[str]:
    if value is not None and not value >= low:
        yield f"{key}={value} is too small; use at least {low:g}"


def above(key: str, value: float | None, low: float) -> Iterator[str]:
    if value is not None and not (value > low and value < float("inf")):
        yield f"{key}={value} must be a finite number above {low:g}"


def share(key: str, value: float, closed: bool = False) -> Iterator[str]:
    if not (0 <= value < 1 or (closed and value == 1)):
        yield f"{key}={value} is no share; use a number from 0 to {'1' if closed else 'below 1'}"


def one_of(key: str, value: Any, known: tuple[Any, ...]) -> Iterator[str]:
    # 1 == True in Python, and 1 is no flag.
    if not any(value == item and type(value) is type(item) for item in known):
        choices = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in known)
        yield f"{key}={value} is unknown; choose one of {choices}"
