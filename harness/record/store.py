"""What a run leaves behind: ``<runs_dir>/<fingerprint>/record.json``, whole at every moment.

A record is a plain dict in the shape of ``record.schema.json``; ``docs/record.md`` explains its fields. Life
of one: ``start`` -> fill in -> ``write`` as often as wanted -> ``finished`` or ``fail`` -> ``write``.
"""

import hashlib
import json
import logging
import os
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HarnessError, RunFault, hint_for
from harness.record import provenance, redact
from harness.record.files import atomic_write_bytes, remove_partial, set_aside
from harness.shipped import VERSION

log = logging.getLogger(__name__)


SCHEMA_VERSION = 1


RECORD_NAME = "record.json"


SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


TRACEBACK_CHARACTERS = 20_000


CHECKSUM = b',\n "sha256": "'


def record_path(runs_dir: str | Path, fingerprint: str) -> Path:
    """Where the record lies. ConfigFault where ``fingerprint`` could lead out of ``runs_dir``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", fingerprint):
        raise ConfigFault(f"run={fingerprint!r} is no fingerprint; take one from the table's column `run`")
    return Path(runs_dir) / fingerprint / RECORD_NAME


def adapter_folder(runs_dir: str | Path, record: Mapping[str, Any]) -> Path:
    """Where the adapter of a finished run is saved."""
    return record_path(runs_dir, record["fingerprint"]).parent / record["adapter"]["path"]


def start_record(
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
    former = read_record(runs_dir, fingerprint)
    remove_partial(record_path(runs_dir, fingerprint).parent)
    now, git = _now(), provenance.git_state()
    code = {"version": provenance.code_version(), "harness": VERSION}
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
        add_note(
            record,
            f"replaces attempt {former['attempt']} ({former['status']}, code {former['code']['version']})",
        )
    write_record(runs_dir, record)
    return record


def add_note(record: dict[str, Any], text: str, of_many: bool = False) -> None:
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


def mark_finished(record: dict[str, Any]) -> dict[str, Any]:
    """Mark the record, in place, as the whole result of its plan; the caller writes it."""
    record.update(status="finished", finished=_now(), error=None)
    return record


def mark_failed(record: dict[str, Any], error: BaseException, hint: str | None = None) -> dict[str, Any]:
    """Mark the record, in place, as failed; the caller writes it.

    An error that is no ``Exception`` (KeyboardInterrupt, SystemExit) came from outside: ``interrupted``.
    """
    stopped = not isinstance(error, Exception)
    trace = "".join(traceback.format_exception(error))
    details = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    details |= {"hint": hint_for(error) if hint is None else hint, "traceback": trace[-TRACEBACK_CHARACTERS:]}
    record.update(status="interrupted" if stopped else "failed", finished=_now(), error=details)
    return record


def write_record(runs_dir: str | Path, record: Mapping[str, Any]) -> Path:
    """Replace the record's file atomically; returns its path. RunFault where the disk refuses.

    Secrets are blanked. Numbers that JSON cannot hold (nan, inf) become null, and a note tells where. The last key,
    ``sha256``, is of all bytes before its line.
    """
    target, lost = record_path(runs_dir, record["fingerprint"]), list[str]()
    clean = redact.clean(record, "", lost, redact.redactor())
    if lost:
        clean["notes"].append(f"not finite, written as null: {', '.join(lost[:5])}{' ...' if lost[5:] else ''}")
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False, indent=1).removesuffix("\n}")
    content = text.encode("utf-8", "backslashreplace")
    try:
        atomic_write_bytes(target, content + _checksum_line(content))
    except OSError as error:
        raise RunFault(f"runs_dir={runs_dir}: {target} cannot be written ({error}). {hint_for(error)}") from error
    return target


def read_record(runs_dir: str | Path, fingerprint: str, curve: bool = True) -> dict[str, Any] | None:
    """The record, or None where there is none. One left ``running`` by a dead process reads ``interrupted``.

    A file that is not a record, or not as it was written, is set aside as ``record.json.corrupt-<n>`` and reported,
    so that the run can be done again. RunFault where it cannot be read, or was written by a newer harness.
    ``curve=False`` leaves ``training.curve`` empty, for tables over thousands of long runs.
    """
    file = record_path(runs_dir, fingerprint)
    try:
        content = file.read_bytes()
        _verify_checksum(content)
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
        aside = set_aside(file)
        reason = f"{type(error).__name__}: {error}"
        log.warning("%s is not a valid record (%s); set aside as %s", file, reason, aside.name)
        return None
    if version != SCHEMA_VERSION:
        raise RunFault(f"{file}: schema_version={version}, this harness reads {SCHEMA_VERSION}; set another runs_dir")
    if record["fingerprint"] != fingerprint:
        raise RunFault(f"{file} holds the record of {record['fingerprint']}; rename its folder to that")
    return _with_true_status(record)


def reusable(runs_dir: str | Path, fingerprint: str, code_version: str) -> dict[str, Any] | None:
    """The finished record of this plan by this very code, or None."""
    record = read_record(runs_dir, fingerprint)
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
        names = sorted(entry.name for entry in entries if os.path.exists(os.path.join(entry.path, RECORD_NAME)))
    for name in names:
        try:
            record = read_record(runs_dir, name, curve=curves)
        except HarnessError as error:
            log.warning("left out: %s", error)
            continue
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda record: (record["started"], record["fingerprint"]))


def schema_faults(record: Mapping[str, Any]) -> list[str]:
    """Where the record departs from the published schema; empty where it conforms."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(record)]


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _verify_checksum(content: bytes) -> None:
    """ValueError where the text is not what its checksum was made of; without one there is nothing to hold it to."""
    body, found, rest = content.rpartition(CHECKSUM)
    if found and found + rest != _checksum_line(body):
        raise ValueError("its checksum does not fit")


def _checksum_line(body: bytes) -> bytes:
    """The end of a record's text: the checksum of what stands before it."""
    return CHECKSUM + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


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


def _with_true_status(record: dict[str, Any]) -> dict[str, Any]:
    if record["status"] == "running" and provenance.alive(record["owner"]) is False:
        message = f"process {record['owner']['pid']} on {record['owner']['host']} ended without a word"
        hint = "killed, or out of memory; run the same command again"
        details = {"type": "Interrupted", "message": message, "hint": hint, "traceback": ""}
        record.update(status="interrupted", error=details)
    return record
