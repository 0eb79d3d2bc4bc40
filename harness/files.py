"""Files that are whole or absent, and what must not reach them: secrets, and numbers that JSON cannot hold."""

import io
import json
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any

from harness import parallel


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` on a clean exit and vanishes on any other.

    Of several processes on one run only the first writes; what the others write goes nowhere.
    """
    if not parallel.leads():
        yield io.BytesIO()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private (0600), and a group's shared runs must stay readable.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # the rename itself must outlive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Replace ``path`` with ``content``: readers and crashes see the old file or the new one, never a mix."""
    with _replacing(Path(path)) as file:
        file.write(content)


def atomic_write_text(path: str | Path, content: str) -> None:
    """``atomic_write_bytes`` of UTF-8 text, line ends as given."""
    atomic_write_bytes(path, content.encode("utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object atomically, with secrets blanked as in a record."""
    text = json.dumps(clean(content, "", [], redactor()), ensure_ascii=False, allow_nan=False, indent=1)
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace") + b"\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically; returns how many. A failing iterator leaves no file."""
    count = 0
    with _replacing(Path(path)) as file:
        for row in rows:
            file.write(_json_line(row) + b"\n")
            count += 1
    return count


def _json_line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
    # These end a line for str.splitlines, and so for some readers of JSONL.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which only JSON's escapes can carry
        return json.dumps(row, allow_nan=False, default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    """What JSON lacks but records contain: paths, enums, and numbers of numpy and torch."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"a record cannot hold {value!r} of type {type(value).__name__}; give a number or text")


# --- what must not reach a file --------------------------------------------------------------------------

_SECRET_NAME = re.compile(r"API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<user>(?<=://)[^\s/@]+(?=@))"  # https://name:password@host
    r"|(?P<bearer>(?<=Bearer )\S{8,})"
    r"|(?P<key>\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|wandb_v1_)[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b)"
)
_LEAST_SECRET = 8  # shorter values ("true", "0") are flags, and blanking them would garble the record


def redactor() -> Callable[[str], str]:
    """A function that blanks known shapes of keys, and the values of environment variables named like one."""
    named = {value: f"<{name}>" for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    # Longest first: a secret may contain another.
    secrets = sorted((value for value in named if len(value) >= _LEAST_SECRET), key=len, reverse=True)

    @cache  # a curve repeats its keys thousands of times
    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, named[secret])
        return _SECRET_TEXT.sub("<secret>", text)

    return redact


def clean(value: Any, where: str, lost: list[str], redact: Callable[[str], str]) -> Any:
    """A copy that JSON can hold; the places of numbers that it cannot are appended to ``lost``."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return redact(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        lost.append(where)
        return None
    if isinstance(value, Mapping):
        return {
            redact(str(key)): clean(item, f"{where}.{key}".lstrip("."), lost, redact) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, f"{where}[{number}]", lost, redact) for number, item in enumerate(value)]
    return clean(_plain(value), where, lost, redact)
