"""Records on disk as runs leave them, made without running anything."""

from pathlib import Path
from typing import Any

from harness.record import store
from harness.record.run_record import RunRecord
from harness.sweep.cells import Cell


def started(cell: Cell, **owner: Any) -> RunRecord:
    """The record of a run of this cell that is running; ``owner`` replaces parts of its owner."""
    plan = cell.plan
    record = store.start_record(cell.options.runs_dir, plan.fingerprint, plan.method, plan.as_dict(), {"seed": 0})
    record.owner |= owner
    return record


def finish(runs_dir: Path, record: RunRecord) -> dict[str, Any]:
    """Write the record as finished."""
    record.mark_finished()
    store.write_record(runs_dir, record)
    return record.as_dict()


def fail(runs_dir: Path, record: RunRecord, error: BaseException) -> dict[str, Any]:
    """Write the record as ended by this error."""
    record.mark_failed(error)
    store.write_record(runs_dir, record)
    return record.as_dict()
