"""What a run leaves behind: ``<runs_dir>/<fingerprint>/record.json``, whole at every moment.

A record is a plain dict in the shape of ``record.schema.json``; ``docs/record.md`` explains its fields. Life
of one: ``start`` -> fill in -> ``write`` as often as wanted -> ``finished`` or ``fail`` -> ``write``.
"""

import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any

from harness import __version__, parallel, provenance
from harness.errors import ConfigFault, HarnessError, RunFault

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
NAME = "record.json"
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
TRACEBACK_CHARACTERS = 20_000
CHECKSUM = b',\n "sha256": "'


# --- files that are whole or absent -------------------------------------------------------------------


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
    clean = _clean(content, "", [], _redactor())
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False, indent=1)
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


# --- one record -----------------------------------------------------------------------------------------


def path(runs_dir: str | Path, fingerprint: str) -> Path:
    """Where the record lies. ConfigFault where ``fingerprint`` could lead out of ``runs_dir``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", fingerprint):
        raise ConfigFault(f"run={fingerprint!r} is no fingerprint; take one from the table's column `run`")
    return Path(runs_dir) / fingerprint / NAME


def start(
    runs_dir: str | Path,
    fingerprint: str,
    method: str,
    plan: Mapping[str, Any],
    seeds: Mapping[str, int | None],
    device: str | None = None,
) -> dict[str, Any]:
    """Write and return a record with status ``running``, owned by this process.

    A former record of the same plan is replaced; the new one says so in its notes. The caller makes sure
    that no other process works on the same fingerprint.
    """
    former = read(runs_dir, fingerprint)
    for leftover in path(runs_dir, fingerprint).parent.glob(f".{NAME}.*.tmp"):
        with suppress(OSError):
            leftover.unlink()  # of a process killed while it wrote
    now, git = _now(), provenance.git_state()
    code = {"version": provenance.code_version(), "harness": __version__}
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "status": "running",
        "method": method,
        "attempt": former["attempt"] + 1 if former else 1,
        "created": former["created"] if former else now,
        "started": now,
        "finished": None,
        "plan": dict(plan),
        "code": code | {"git_commit": git["commit"], "git_dirty": git["dirty"]},
        "versions": provenance.versions(),
        "device": provenance.device_info(device),
        "owner": provenance.owner(),
        "seeds": dict(seeds),
        "notes": [],
        "scores": {"before": {}, "after": {}, "signatures": {}},
    }
    record |= {key: {} for key in ("inferred", "audit", "rows", "parameters", "times_s", "memory_bytes", "training")}
    record |= dict.fromkeys(("adapter", "predictions", "tracker", "error"))
    if former:
        note(
            record,
            f"replaces attempt {former['attempt']} ({former['status']}, code {former['code']['version']})",
        )
    write(runs_dir, record)
    return record


def note(record: dict[str, Any], text: str, of_many: bool = False) -> None:
    """Say on the console and in the record what was reused, resumed, inferred or fell back.

    ``of_many``: of what many runs share; the console has it once, each record has it.
    """
    if of_many:
        say_once(text)
    else:
        log.warning("%s %s: %s", record["method"], record["fingerprint"][:8], text)
    record["notes"].append(text)


@cache
def say_once(text: str) -> None:
    """Say on the console what this process has not said yet."""
    log.warning(text)


def finished(record: dict[str, Any]) -> dict[str, Any]:
    """Mark the record, in place, as the whole result of its plan; the caller writes it."""
    record.update(status="finished", finished=_now(), error=None)
    return record


def fail(record: dict[str, Any], error: BaseException, hint: str | None = None) -> dict[str, Any]:
    """Mark the record, in place, as failed; the caller writes it.

    An error that is no ``Exception`` (KeyboardInterrupt, SystemExit) came from outside: ``interrupted``.
    """
    stopped = not isinstance(error, Exception)
    trace = "".join(traceback.format_exception(error))
    details = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    details |= {"hint": hint_for(error) if hint is None else hint, "traceback": trace[-TRACEBACK_CHARACTERS:]}
    record.update(status="interrupted" if stopped else "failed", finished=_now(), error=details)
    return record


def write(runs_dir: str | Path, record: Mapping[str, Any]) -> Path:
    """Replace the record's file atomically; returns its path. RunFault where the disk refuses.

    Secrets are blanked. Numbers that JSON cannot hold (nan, inf) become null, and a note tells where. The last key,
    ``sha256``, is of all bytes before its line.
    """
    target, lost = path(runs_dir, record["fingerprint"]), list[str]()
    clean = _clean(record, "", lost, _redactor())
    if lost:
        clean["notes"].append(f"not finite, written as null: {', '.join(lost[:5])}{' ...' if lost[5:] else ''}")
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False, indent=1).removesuffix("\n}")
    content = text.encode("utf-8", "backslashreplace")
    try:
        atomic_write_bytes(target, content + CHECKSUM + hashlib.sha256(content).hexdigest().encode() + b'"\n}\n')
    except OSError as error:
        raise RunFault(f"runs_dir={runs_dir}: {target} cannot be written ({error}). {hint_for(error)}") from error
    return target


def read(runs_dir: str | Path, fingerprint: str, curve: bool = True) -> dict[str, Any] | None:
    """The record, or None where there is none. One left ``running`` by a dead process reads ``interrupted``.

    A file that is not a record, or not as it was written, is set aside as ``record.json.corrupt-<n>`` and reported,
    so that the run can be done again. RunFault where it cannot be read, or was written by a newer harness.
    ``curve=False`` leaves ``training.curve`` empty, for tables over thousands of long runs.
    """
    file = path(runs_dir, fingerprint)
    try:
        content = file.read_bytes()
        _check(content)
        record = json.loads(content if curve else _without_curve(content))
        version = record["schema_version"]
        if version == SCHEMA_VERSION:
            _touch_what_readers_rely_on(record)
            record.pop("sha256", None)  # of the file, which it has left
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFault(f"{file} cannot be read ({error}); check its permissions or set runs_dir") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _set_aside(file, error)
        return None
    if version != SCHEMA_VERSION:
        raise RunFault(f"{file}: schema_version={version}, this harness reads {SCHEMA_VERSION}; set another runs_dir")
    if record["fingerprint"] != fingerprint:
        raise RunFault(f"{file} holds the record of {record['fingerprint']}; rename its folder to that")
    return _with_true_status(record)


def reusable(runs_dir: str | Path, fingerprint: str, code_version: str) -> dict[str, Any] | None:
    """The finished record of this plan by this very code, or None."""
    record = read(runs_dir, fingerprint)
    if record is None or record["status"] != "finished" or record["code"]["version"] != code_version:
        return None
    return record


def all_records(runs_dir: str | Path, curves: bool = True) -> list[dict[str, Any]]:
    """Every readable record below ``runs_dir``, by start time; unreadable ones are reported and left out.

    ``curves=False`` is four times as fast, and leaves every ``training.curve`` empty.
    """
    if not Path(runs_dir).is_dir():
        return []
    found = []
    with os.scandir(runs_dir) as entries:
        names = sorted(entry.name for entry in entries if os.path.exists(os.path.join(entry.path, NAME)))
    for name in names:
        try:
            record = read(runs_dir, name, curve=curves)
        except HarnessError as error:
            log.warning("left out: %s", error)
            continue
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda record: (record["started"], record["fingerprint"]))


def faults(record: Mapping[str, Any]) -> list[str]:
    """Where the record departs from the published schema; empty where it conforms."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(record)]


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check(content: bytes) -> None:
    """ValueError where the text is not what its checksum was made of; without one there is nothing to hold it to."""
    body, found, rest = content.rpartition(CHECKSUM)
    if found and rest != hashlib.sha256(body).hexdigest().encode() + b'"\n}\n':
        raise ValueError("its checksum does not fit")


def _without_curve(content: bytes) -> bytes:
    """The record's text less the points of ``training.curve``, most of its bytes, unparsed.

    ``write`` indents by one space, and JSON escapes line ends within strings: so these lines are structure.
    """
    begin = content.find(b'\n  "curve": [\n')
    end = content.find(b"\n  ]", begin + 1)
    if begin < 0 or end < 0:
        return content
    return content[:begin] + b'\n  "curve": [' + content[end:]


def _touch_what_readers_rely_on(record: dict[str, Any]) -> None:
    """KeyError or TypeError where a record is too broken to be listed; the schema itself is far stricter."""
    for key in ("fingerprint", "method", "attempt", "created", "started", "plan", "notes", "scores"):
        _ = record[key]
    _ = record["code"]["version"], record["owner"]["host"], record["owner"]["pid"]
    if record["status"] not in ("running", "finished", "failed", "interrupted"):
        raise ValueError(f"status={record['status']!r}")


def _set_aside(file: Path, error: Exception) -> None:
    number = 1
    while (aside := file.with_name(f"{file.name}.corrupt-{number}")).exists():
        number += 1
    with suppress(FileNotFoundError):  # another process may have been quicker
        os.replace(file, aside)
    log.warning("%s is no record (%s: %s); set aside as %s", file, type(error).__name__, error, aside.name)


def _with_true_status(record: dict[str, Any]) -> dict[str, Any]:
    if record["status"] == "running" and provenance.alive(record["owner"]) is False:
        message = f"process {record['owner']['pid']} on {record['owner']['host']} ended without a word"
        hint = "killed, or out of memory; run the same command again"
        details = {"type": "Interrupted", "message": message, "hint": hint, "traceback": ""}
        record.update(status="interrupted", error=details)
    return record


# --- what must not reach a record -----------------------------------------------------------------------

_SECRET_NAME = re.compile(r"API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(?P<user>(?<=://)[^\s/@]+(?=@))"  # https://name:password@host
    r"|(?P<bearer>(?<=Bearer )\S{8,})"
    r"|(?P<key>\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|wandb_v1_)[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b)"
)
_LEAST_SECRET = 8  # shorter values ("true", "0") are flags, and blanking them would garble the record


def _redactor() -> Callable[[str], str]:
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


def _clean(value: Any, where: str, lost: list[str], redact: Callable[[str], str]) -> Any:
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
            redact(str(key)): _clean(item, f"{where}.{key}".lstrip("."), lost, redact) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(item, f"{where}[{number}]", lost, redact) for number, item in enumerate(value)]
    return _clean(_plain(value), where, lost, redact)


# --- what to do about an error --------------------------------------------------------------------------

_UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ConnectError", "LocalEntryNotFoundError")
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"OutOfMemoryError|out of memory|MemoryError|TerminatedWorkerError|CUBLAS_STATUS_ALLOC_FAILED",
        "out of memory: lower trainer.batch_size and raise trainer.gradient_accumulation_steps by the same "
        "factor (trainer.on_oom=halve does), set trainer.gradient_checkpointing=true, or lower data.max_tokens",
    ),
    (
        r"non-?finite|not finite|\bnan\b.*\bloss|loss.*\bnan\b",
        "the loss is not finite: lower trainer.learning_rate, raise trainer.warmup_share, or use "
        "model.dtype=bfloat16 or float32 instead of float16",
    ),
    (
        r"\[Errno (28|122)\]|No space left|Disk quota",
        "the disk is full: free space, or set runs_dir to another disk",
    ),
    (r"\[Errno (13|30)\]", "not allowed to write there: check permissions, or set runs_dir elsewhere"),
    (
        r"GatedRepo|gated repo|\b40[13] Client Error",
        "the hub refuses access: accept the model's terms and log in to it",
    ),
    (
        "|".join(_UNREACHABLE)
        + r"|OfflineMode|couldn't connect to|Max retries exceeded|Name or service not known|Name resolution",
        "the hub cannot be reached: check the network, or use model.source=folder and a local data.path",
    ),
    (
        r"device-side assert|illegal memory access",
        "a CUDA kernel failed: CUDA_LAUNCH_BLOCKING=1 shows which one",
    ),
)


def hint_for(error: BaseException) -> str:
    """What the user may do about an error, judged by it and by what caused it; "" where nothing is known."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped from outside; run the same command again"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full: free space, or set runs_dir to another disk"
        text = f"{type(cause).__name__}: {cause}"
        for pattern, hint in _HINTS:
            if re.search(pattern, text, re.IGNORECASE):
                return hint
        cause = cause.__cause__ or cause.__context__
    return ""
