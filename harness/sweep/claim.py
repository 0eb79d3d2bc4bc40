"""Which of several processes runs a plan.

Processes with the same plan agree through a lock in the run's folder: one of them runs the plan, and the others
use the record that it leaves.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness.errors import HeldByAnotherProcess, Paused
from harness.plan.spec import Options, Plan
from harness.record import locks
from harness.sweep.cells import Cell
from harness.sweep.reuse import describe_result, describe_reuse, failure_of, made_by_another, other_code, reusable

log = logging.getLogger(__name__)

POLL_S = 2.0  # between looks at the runs of other processes

StillHeld = Callable[[], bool]  # whether this process may still publish the run: locks.Lock.held

RunFunction = Callable[[Plan, Options, str, StillHeld], dict[str, Any]]


def run_cell(cell: Cell, run: RunFunction, wait: bool = False) -> dict[str, Any]:
    """The record of one cell: made now under its lock, or a finished one that is reused.

    Args:
        wait: wait for another process that is running the plan instead of raising.

    Raises:
        HeldByAnotherProcess: another process is running the plan, or took it over; only without ``wait``.
        Paused: the run has reached the evaluation after which it pauses.
        RunFault: the run failed, here or, since the command began, in another process.
    """
    while (record := _existing(cell)) is None:
        try:
            former = locks.holder(cell.folder)
            with _lock(cell) as lock:
                record = _existing(cell)  # the former owner may have finished just before we took the lock
                if record is not None:
                    return record
                if former is not None:
                    log.warning(
                        "%s: replacing %s, which is no longer running", cell.plan.fingerprint, locks.describe(former)
                    )
                return run(cell.plan, cell.options, cell.name, lock.held)
        except HeldByAnotherProcess:
            if not wait:
                raise
            wait_for([cell])
    return record


def wait_for(cells: Sequence[Cell]) -> list[Cell]:
    """Block until another process has finished or released some of these cells; returns those."""
    announced = dict[str, str]()
    while True:
        ready = [cell for cell in cells if made_by_another(cell) or reusable(cell) or _is_free(cell)]
        if ready:
            return ready
        for cell in cells:
            owner = locks.describe(locks.holder(cell.folder) or {})
            if announced.get(cell.plan.fingerprint) != owner:
                log.info("%s: waiting for %s, which is running this plan", cell.plan.fingerprint, owner)
                announced[cell.plan.fingerprint] = owner
        time.sleep(POLL_S)


def _lock(cell: Cell) -> locks.Lock:
    lock = locks.take_lock(cell.folder)
    if lock is None:
        owner = locks.describe(locks.holder(cell.folder) or {})
        raise HeldByAnotherProcess(f"{owner} is running {cell.plan.fingerprint}")
    return lock


def _is_free(cell: Cell) -> bool:
    """Whether the lock can be taken: its owner has released it, or is dead."""
    lock = locks.take_lock(cell.folder)  # only taking it also counts how long another machine has been silent
    if lock is not None:
        lock.release()
    return lock is not None


def _existing(cell: Cell) -> dict[str, Any] | None:
    """The record that answers for the plan. RunFault if that is another process's failure."""
    record = made_by_another(cell)
    if record:
        if record["status"] == "failed":
            raise failure_of(record)
        log.info("%s: %s", cell.plan.fingerprint, describe_result(record))
        return record
    record = reusable(cell)
    if record:
        log.info("%s: %s", cell.plan.fingerprint, describe_reuse(record))
        return record
    _refuse_beyond_rung(cell)
    return None


def _refuse_beyond_rung(cell: Cell) -> None:
    """Raise Paused if another process has trained the plan up to the evaluation at which it pauses."""
    wanted, record = cell.options.pause_after, cell.read_record()
    if wanted is None or cell.options.rerun or record is None or other_code(record) is not None:
        return
    if record["status"] in ("interrupted", "pruned") and len(record["training"].get("validation") or ()) >= wanted:
        raise Paused(f"paused after evaluation {wanted} by {locks.describe(record['owner'])}")
