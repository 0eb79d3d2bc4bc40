"""Files and folders that are complete or absent, whenever the process is killed; damaged ones are set aside."""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from harness.record.redact import clean, redactor, to_plain
from harness.runtime import distributed
from harness.runtime.platform import patiently, sync_folder

PARTIAL = ".partial"  # suffix of what is being written; its name begins with a dot


def partial_path(path: Path, tag: str | None = None) -> Path:
    """Where ``path`` is written until it is complete: a hidden name beside it, unique unless ``tag`` is given."""
    # Not tempfile: its files are private (0600), and a group's shared runs must stay readable.
    return path.with_name(f".{path.name}.{tag or uuid.uuid4().hex[:12]}{PARTIAL}")


@contextmanager
def replacing(path: Path, tag: str | None = None) -> Iterator[Path]:
    """A path to write a file or folder to: it replaces ``path`` on a clean exit and is removed on any other.

    Args:
        tag: names the partial file or folder, when several processes write into the same one.
    """
    partial = partial_path(path, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _share(partial)
        if path.is_dir():
            patiently(shutil.rmtree, path)  # a rename cannot replace a folder that has content
        patiently(os.replace, partial, path)
    except BaseException:
        with suppress(OSError):
            remove(partial)
        raise


def _share(folder: Path) -> None:
    """Give the files of a new folder the permissions that the umask gives, as all others have.

    safetensors makes its files for their owner alone (0600), and a group's shared runs must stay readable.
    """
    for each in [folder, *folder.rglob("*")] if folder.is_dir() else []:
        for file in each.iterdir() if each.is_dir() else []:
            if file.is_file() and not file.is_symlink():
                # A folder's own mode is what the umask left of 0777.
                file.chmod(each.stat().st_mode & 0o666 | file.stat().st_mode & 0o111)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``; only for the process that holds its lock."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            remove(leftover)


def file_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file, in hex (about 1.5 GB/s). Raises ``OSError``."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def set_aside(path: Path, label: str = "corrupt") -> Path:
    """Rename a damaged file or folder to ``<name>.corrupt-<n>``, the first free number; returns the new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{label}-{number}")).exists():
        number += 1
    with suppress(FileNotFoundError):  # another process may have been quicker
        patiently(os.replace, path, aside)
    return aside


@contextmanager
def _replacing_file(path: Path) -> Iterator[IO[bytes]]:
    """An open file that replaces ``path`` on a clean exit; outside the main process it goes nowhere."""
    if not distributed.is_main_process():
        yield io.BytesIO()
        return
    with replacing(path) as partial, open(partial, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)  # the rename itself must outlive a power cut


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Replace ``path`` with ``content``: readers and crashes see the old file or the new one, never a mix."""
    with _replacing_file(Path(path)) as file:
        file.write(content)


def atomic_write_text(path: str | Path, content: str) -> None:
    """``atomic_write_bytes`` of UTF-8 text; line ends stay as they are.

    Secrets are not redacted here, where the text may be escaped already.
    """
    atomic_write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write one JSON object atomically, with secrets redacted as in a record."""
    text = json.dumps(clean(content, "", [], redactor()), ensure_ascii=False, allow_nan=False, indent=1)
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace") + b"\n")


def redact_json(file: Path) -> None:
    """Redact the secrets in a JSON file that a library has written; a file without any is left as it is."""
    content = json.loads(file.read_text(encoding="utf-8"))
    redacted = clean(content, "", [], redactor())
    if redacted != content:
        write_json(file, redacted)


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object per line, atomically, with secrets redacted; return how many.

    If the iterator fails, the old file stays.
    """
    count, redact = 0, redactor()
    with _replacing_file(Path(path)) as file:
        for row in rows:
            file.write(_json_line(clean(row, "", [], redact)) + b"\n")
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
