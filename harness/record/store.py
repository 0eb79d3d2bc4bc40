"""What a run leaves behind: ``<runs_dir>/<fingerprint>/record.json``, complete at every moment.

``start_record`` -> fill in -> ``write_record`` as often as wanted -> ``mark_finished`` or ``mark_failed`` ->
``write_record``. What is read back is a plain dict in the newest shape, whatever version wrote it.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HarnessError, RunFault, hint_for
from harness.record import provenance, redact
from harness.record.files import atomic_write_bytes, remove_partial, set_aside
from harness.record.run_record import Code, Failure, RunRecord, now
from harness.record.upgrade import SCHEMA_VERSION, upgrade

log = logging.getLogger(__name__)


RECORD_NAME = "record.json"


ADAPTER = "adapter"  # the adapter's folder in the run's


SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


CHECKSUM = b',\n "sha256": "'


def record_path(runs_dir: str | Path, fingerprint: str) -> Path:
    """Where the record is. Raises ConfigFault if ``fingerprint`` could lead out of ``runs_dir``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", fingerprint):
        raise ConfigFault(f"run={fingerprint!r} is not a fingerprint; copy one from the column `run` of the table")
    return Path(runs_dir) / fingerprint / RECORD_NAME


def adapter_folder(runs_dir: str | Path, record: Mapping[str, Any]) -> Path:
    """Where the adapter of a finished run is saved.

    Raises:
        ConfigFault: the run kept none.
    """
    if not record["adapter"] or record.get("kept") == "record":
        why = " (keep=record)" if record.get("kept") == "record" else ""
        raise ConfigFault(
            f"run={record['fingerprint']} kept no adapter{why}; run its command again with rerun=true keep=adapter"
        )
    return record_path(runs_dir, record["fingerprint"]).parent / record["adapter"]["path"]


def start_record(
    runs_dir: str | Path,
    fingerprint: str,
    method: str,
    plan: Mapping[str, Any],
    seeds: Mapping[str, int | None],
) -> RunRecord:
    """Write and return a record with status ``running``, owned by this process.

    It replaces the record of an earlier attempt, and says so in its notes. The caller holds the lock of the
    fingerprint.
    """
    former = read_record(runs_dir, fingerprint)
    remove_partial(record_path(runs_dir, fingerprint).parent)
    started = now()
    record = RunRecord(
        fingerprint=fingerprint,
        method=method,
        attempt=former["attempt"] + 1 if former else 1,
        created=former["created"] if former else started,
        started=started,
        plan=dict(plan),
        code=Code.here(),
        versions=provenance.versions(),
        device=provenance.device_info(),
        owner=provenance.owner(),
        seeds=dict(seeds),
    )
    if former:
        paused = (former["error"] or {}).get("type") == "Paused"
        status = "paused" if paused else former["status"]
        replaced = f"attempt {former['attempt']} ({status}, code {former['code']['version']})"
        add_note(record, f"replaces {replaced}")
    write_record(runs_dir, record)
    return record


def add_note(record: RunRecord, text: str, shared: bool = False) -> None:
    """Say on the console and in the record what was reused, resumed, inferred or replaced by a fallback.

    Args:
        shared: the note applies to many runs: the console has it once, each record has it.
    """
    if shared:
        say_once(text)
    else:
        log.warning("%s %s: %s", record.method, record.fingerprint[:8], text)
    record.notes.append(text)


@cache  # of the process, as the console is
def say_once(text: str) -> None:
    """Say on the console what this process has not said yet."""
    log.warning(text)


def write_record(runs_dir: str | Path, record: RunRecord | Mapping[str, Any]) -> Path:
    """Replace the record's file atomically; return its path.

    Secrets are redacted. Numbers that JSON cannot hold (nan, inf) become null, and a note names them. The last key,
    ``sha256``, is the checksum of all bytes before its line.

    Raises:
        RunFault: the disk refuses.
    """
    content = record.as_dict() if isinstance(record, RunRecord) else record
    target, lost = record_path(runs_dir, content["fingerprint"]), list[str]()
    clean = redact.clean(content, "", lost, redact.redactor())
    if lost:
        clean["notes"].append(f"not finite, written as null: {', '.join(lost[:5])}{' ...' if lost[5:] else ''}")
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False, indent=1).removesuffix("\n}")
    body = text.encode("utf-8", "backslashreplace")
    try:
        atomic_write_bytes(target, body + _checksum_line(body))
    except OSError as error:
        raise RunFault(f"runs_dir={runs_dir}: {target} cannot be written ({error}). {hint_for(error)}") from error
    return target


def read_record(runs_dir: str | Path, fingerprint: str, curve: bool = True) -> dict[str, Any] | None:
    """The record in the newest shape, or None if there is none.

    A record left ``running`` by a process that died reads ``interrupted``. A file that is not a valid record, or not
    as it was written, is renamed to ``record.json.corrupt-<n>`` with a warning, so that the run can be done again.

    Args:
        curve: False leaves ``training.curve`` empty, for tables over thousands of long runs.

    Raises:
        RunFault: the file cannot be read, was written by a newer harness, or is the record of another plan.
    """
    file = record_path(runs_dir, fingerprint)
    try:
        record, newer = _parsed(file, curve)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFault(f"{file} cannot be read ({error}); check its permissions or set runs_dir") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        try:
            aside = set_aside(file)
        except OSError as why:  # a folder that may only be read
            raise RunFault(f"{file} is not a valid record ({reason}), and cannot be set aside ({why})") from error
        log.warning("%s is not a valid record (%s); set aside as %s", file, reason, aside.name)
        return None
    if newer:
        raise RunFault(
            f"{file}: schema_version={record['schema_version']}, but this harness reads up to {SCHEMA_VERSION}; "
            "use a newer harness, or set another runs_dir"
        )
    if record["fingerprint"] != fingerprint:
        raise RunFault(f"{file} holds the record of {record['fingerprint']}; rename its folder to that")
    return _with_true_status(record)


def read_copy(file: Path) -> dict[str, Any]:
    """A record outside a folder of runs, such as the one that a tracker keeps; the file stays as it is.

    Raises:
        RunFault: it cannot be read, is not a valid record, or was written by a newer harness.
    """
    try:
        record, newer = _parsed(file, curve=True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFault(f"{file} is not a valid record ({type(error).__name__}: {error})") from error
    if newer:
        raise RunFault(f"{file}: a newer harness wrote it; use that, or leave its folder out")
    return _with_true_status(record)


def _parsed(file: Path, curve: bool) -> tuple[dict[str, Any], bool]:
    """The record in the newest shape; or as it is, and True, if a newer harness wrote it."""
    content = file.read_bytes()
    _verify_checksum(content)
    record = json.loads(content if curve else _without_curve(content))
    version = record["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return record, True
    record = upgrade(record)
    _touch_what_readers_rely_on(record)
    record.pop("sha256", None)  # the file's, not the record's
    return record, False


def all_records(runs_dir: str | Path, curves: bool = True, foreign: bool = False) -> list[dict[str, Any]]:
    """Every readable record below ``runs_dir``, by start time; unreadable ones are reported and left out.

    Args:
        curves: False is four times as fast, and leaves every ``training.curve`` empty.
        foreign: also those that ``stage=import_results`` made of results of others.
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
        if record is not None and (foreign or not record.get("foreign")):
            found.append(record)
    return sorted(found, key=lambda record: (record["started"], record["fingerprint"]))


def as_interrupted(record: Mapping[str, Any], message: str, hint: str) -> dict[str, Any]:
    """The record of a run whose process can no longer write it."""
    failure = Failure("Interrupted", message, hint, traceback="")
    return dict(record) | {"status": "interrupted", "error": vars(failure)}


def schema_faults(record: Mapping[str, Any]) -> list[str]:
    """Where the record departs from the published schema; empty if it conforms."""
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(record)]


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def _verify_checksum(content: bytes) -> None:
    """Raise ValueError if the text is not what its checksum was made of; a text without one is taken as it is."""
    body, found, rest = content.rpartition(CHECKSUM)
    if found and found + rest != _checksum_line(body):
        raise ValueError("checksum mismatch")


def _checksum_line(body: bytes) -> bytes:
    """The end of a record's text: the checksum of all bytes before it."""
    return CHECKSUM + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def _without_curve(content: bytes) -> bytes:
    """The record's text without the points of ``training.curve``, most of its bytes, unparsed.

    ``write_record`` indents by one space, and JSON escapes line ends within strings: so these lines are structure.
    """
    begin = content.find(b'\n  "curve": [\n')
    end = content.find(b"\n  ]", begin + 1)
    if begin < 0 or end < 0:
        return content
    return content[:begin] + b'\n  "curve": [' + content[end:]


def _touch_what_readers_rely_on(record: dict[str, Any]) -> None:
    """Raise KeyError or TypeError if a record is too broken to be listed; the schema itself is far stricter."""
    for key in ("fingerprint", "method", "attempt", "created", "started", "plan", "notes", "scores"):
        _ = record[key]
    _ = record["code"]["version"], record["owner"]["host"], record["owner"]["pid"]
    if record["status"] not in ("running", "finished", "failed", "interrupted", "pruned"):
        raise ValueError(f"status={record['status']!r}")


def _with_true_status(record: dict[str, Any]) -> dict[str, Any]:
    if record["status"] == "running" and provenance.alive(record["owner"]) is False:
        message = f"process {record['owner']['pid']} on {record['owner']['host']} ended before the run did"
        return as_interrupted(record, message, "killed, or out of memory; run the same command again")
    return record
