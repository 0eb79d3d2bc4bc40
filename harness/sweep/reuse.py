"""Which record answers for a cell, so that its plan need not run again."""

from collections.abc import Mapping
from typing import Any

from harness.config.schema import DType, Retry, Reuse
from harness.errors import RunFault
from harness.models import digests
from harness.record import locks, provenance, store
from harness.record.adapter_files import adapter_fault
from harness.sweep.cells import Cell


def reusable(cell: Cell) -> dict[str, Any] | None:
    """The finished record of this cell's plan; None with ``rerun=true``.

    A record of another code version counts only with ``sweep.reuse=any``.
    """
    record = None if cell.options.rerun else cell.read_record()
    return record if record and is_result(cell, record) else None


def failed_and_not_retried(cell: Cell) -> dict[str, Any] | None:
    """The failed record of this code version that ``sweep.retry=none`` does not retry."""
    if cell.options.rerun or cell.options.retry is not Retry.none:
        return None
    record = cell.read_record()
    return record if record and record["status"] == "failed" and other_code(record) is None else None


def made_by_another(cell: Cell) -> dict[str, Any] | None:
    """The finished or failed record that another process has made since this command began.

    A failure counts, because the plan was attempted during this command; an interruption does not.
    """
    record = None if cell.attempts is None else cell.read_record()
    if record is None or cell.attempts is None or record["attempt"] <= cell.attempts:
        return None
    failed = record["status"] == "failed" and other_code(record) is None
    return record if failed or is_result(cell, record) else None


def other_code(record: Mapping[str, Any]) -> str | None:
    """The record's code version if it is not the present one."""
    version = str(record["code"]["version"])
    return None if version == provenance.code_version() else version


def describe_reuse(record: Mapping[str, Any]) -> str:
    """``finished 2026-01-01T00:00:00; rerun=true runs it again``; names the code version if it is another one."""
    version = other_code(record)
    code = f" by code {version}, now {provenance.code_version()} (sweep.reuse=any)" if version else ""
    adapter = ", without its adapter (keep=record)" if record.get("kept") == "record" else ""
    return f"finished {record['finished']}{code}{adapter}; rerun=true runs it again"


def describe_result(record: Mapping[str, Any]) -> str:
    """``finished by process 4711 on node7``."""
    return f"{record['status']} by {locks.describe(record['owner'])}"


def failure_of(record: Mapping[str, Any]) -> RunFault:
    """The error that a failed record keeps."""
    error = record["error"] or {}
    return RunFault(f"{describe_result(record)}: {error.get('message', 'its record gives no reason')}")


def is_result(cell: Cell, record: Mapping[str, Any]) -> bool:
    """Whether the record is finished, of an accepted code version, and complete: its files are as they were written."""
    if record["status"] != "finished" or (cell.options.reuse is Reuse.same_code and other_code(record) is not None):
        return False
    if _other_weights(cell, record):
        return False
    predictions, adapter = record["predictions"], record["adapter"]
    if predictions and not (cell.folder / predictions).exists():
        return False
    left = adapter and record.get("kept") != "record"
    fault = adapter_fault(cell.folder / adapter["path"], adapter) if left else None
    if fault:
        store.say_once(f"{cell.plan.fingerprint}: its adapter cannot be reused ({fault}); the plan runs again")
    return fault is None


def _other_weights(cell: Cell, record: Mapping[str, Any]) -> bool:
    """Whether the record's base model had other weights than the plan's when it was last loaded here."""
    if cell.plan.model.dtype is DType.auto:
        return False  # decided where it runs
    used, now = record["inferred"].get("base_weights"), digests.known_weights(cell.plan.base_key)
    if used is None or now is None or used == now:
        return False
    store.say_once(
        f"{cell.plan.fingerprint}: finished with base weights {used[:12]}, and model={cell.plan.model.name} now has "
        f"{now[:12]}; running it again"
    )
    return True
