"""Files that are whole or absent, and what must not reach them: secrets, and numbers that JSON cannot hold."""

import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from harness.record.redact import clean, redactor, to_plain
from harness.runtime import distributed


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` on a clean exit and vanishes on any other.

    Of several processes on one run only the first writes; what the others write goes nowhere.
    """
    if not distributed.is_main_process():
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
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=to_plain)
    # These end a line for str.splitlines, and so for some readers of JSONL.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which only JSON's escapes can carry
        return json.dumps(row, allow_nan=False, default=to_plain).encode("ascii")
