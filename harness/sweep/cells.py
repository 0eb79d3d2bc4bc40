"""One cell of a grid: its plan, what its record says, and which of several processes carries it out.

Processes that are given the same plan agree by a lock in the run's folder: one runs it, the others find it
``Elsewhere`` and use the record that it leaves.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema import Retry
from harness.errors import HeldByAnotherProcess, RunFault
from harness.plan.spec import Options, Plan
from harness.record import locks, provenance, store

log = logging.getLogger(__name__)


# What makes no difference to a result, and so does not name a cell.
OVERRIDES_WITHOUT_EFFECT = (
    *("runs_dir=", "rerun=", "stage=", "tracker", "sweep.", "export.", "hydra"),
    *("trainer.threads=", "trainer.checkpoint_", "trainer.on_oom="),
)


POLL_S = 2.0  # between looks at runs of other processes


StillHeld = Callable[[], bool]  # whether this process may still publish the run: locks.Lock.held


RunFunction = Callable[[Plan, Options, str, StillHeld], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: its overrides and the plan that they make; cells may share a plan."""

    overrides: tuple[str, ...]
    plan: Plan
    options: Options
    tries: int | None = None  # attempts on record when the command began; null: not looked at

    @property
    def name(self) -> str:
        """The overrides as typed, less those of options, which make no difference to a result."""
        return " ".join(effective_overrides(self.overrides)) or self.plan.method

    @property
    def folder(self) -> Path:
        """Where the run's record and its lock lie."""
        return store.record_path(self.options.runs_dir, self.plan.fingerprint).parent

    def on_record(self) -> dict[str, Any] | None:
        """The record of this cell's plan, whatever its state and code."""
        return store.read_record(self.options.runs_dir, self.plan.fingerprint)


def effective_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides less those of options, which make no difference to a result."""
    return [text for text in overrides if not text.lstrip("+~").startswith(OVERRIDES_WITHOUT_EFFECT)]


def cell_from_hydra(plan: Plan, options: Options) -> tuple[Cell, bool]:
    """The cell that Hydra is running now, and whether it is one of a sweep's."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    in_sweep = not OmegaConf.is_missing(hydra.job, "num")
    return Cell(tuple(hydra.overrides.task), plan, options), in_sweep


# --- what a record answers --------------------------------------------------------------------------------


def reusable(cell: Cell) -> dict[str, Any] | None:
    """The finished record of this cell's plan by this code, unless it is to be done again."""
    found = None if cell.options.rerun else cell.on_record()
    return found if found and _is_by_this_code(found, "finished") and _whole(cell, found) else None


def failed_and_not_retried(cell: Cell) -> dict[str, Any] | None:
    """The failed record by this code that ``sweep.retry=none`` leaves as it is."""
    if cell.options.rerun or cell.options.retry is not Retry.none:
        return None
    found = cell.on_record()
    return found if found and _is_by_this_code(found, "failed") else None


def answered_by_another(cell: Cell) -> dict[str, Any] | None:
    """What another process has made of the plan since this command began: its finished or failed record.

    A failure counts, for the plan was tried once under this command's eyes; an interruption does not.
    """
    found = None if cell.tries is None else cell.on_record()
    if found is None or cell.tries is None or found["attempt"] <= cell.tries:
        return None
    if _is_by_this_code(found, "failed"):
        return found
    return found if _is_by_this_code(found, "finished") and _whole(cell, found) else None


def describe_result(found: dict[str, Any]) -> str:
    """``finished by process 4711 on node7``."""
    return f"{found['status']} by {locks.describe(found['owner'])}"


def failure_of(found: dict[str, Any]) -> RunFault:
    """A failed record as the error that it keeps."""
    error = found["error"] or {}
    return RunFault(f"{describe_result(found)}: {error.get('message', 'no reason on record')}")


def _is_by_this_code(found: dict[str, Any], status: str) -> bool:
    return bool(found["status"] == status and found["code"]["version"] == provenance.code_version())


def _whole(cell: Cell, found: dict[str, Any]) -> bool:
    """Whether the files that the record names are still there."""
    names = [found["adapter"]["path"] if found["adapter"] else None, found["predictions"]]
    return all((cell.folder / name).exists() for name in names if name)


# --- running it -------------------------------------------------------------------------------------------


def run_cell(cell: Cell, run: RunFunction) -> dict[str, Any]:
    """The record of one cell: made now under its lock, or the finished one used again.

    Raises:
        Elsewhere: another process works on the plan, or has taken it over.
        RunFault: it failed, here or, since the command began, in another process.
    """
    found = _known(cell)
    if found:
        return found
    before = locks.holder(cell.folder)
    lock = locks.take_lock(cell.folder)
    if lock is None:
        raise HeldByAnotherProcess(
            f"{locks.describe(locks.holder(cell.folder) or {})} works on {cell.plan.fingerprint}"
        )
    with lock:
        # The former owner may have finished between our look and our lock.
        found = _known(cell)
        if found:
            return found
        if before is not None:
            log.warning("%s: taken over from %s, which is gone", cell.plan.fingerprint, locks.describe(before))
        return run(cell.plan, cell.options, cell.name, lock.held)


def run_or_wait(cell: Cell, run: RunFunction) -> dict[str, Any]:
    """``run_cell`` for a single run: where another process works on the plan, wait for what it makes of it."""
    while True:
        try:
            return run_cell(cell, run)
        except HeldByAnotherProcess:
            wait_for([cell])


def wait_for(cells: Sequence[Cell]) -> list[Cell]:
    """Those that another process has answered or let go, as soon as there is one; says whom it waits for."""
    told_of = dict[str, str]()
    while True:
        ended = [cell for cell in cells if answered_by_another(cell) or reusable(cell) or _free(cell)]
        if ended:
            return ended
        for cell in cells:
            owner = locks.describe(locks.holder(cell.folder) or {})
            if told_of.get(cell.plan.fingerprint) != owner:
                log.info("%s: %s works on it; waiting for that", cell.plan.fingerprint, owner)
                told_of[cell.plan.fingerprint] = owner
        time.sleep(POLL_S)


def _free(cell: Cell) -> bool:
    """Whether the lock can be had: its owner has released it, or is dead."""
    lock = locks.take_lock(cell.folder)  # the only question that also counts how long another machine has been silent
    if lock is not None:
        lock.release()
    return lock is not None


def _known(cell: Cell) -> dict[str, Any] | None:
    """The record that answers for the plan. RunFault where that is another process's failure."""
    found = answered_by_another(cell)
    if found:
        if found["status"] == "failed":
            raise failure_of(found)
        log.info("%s: %s", cell.plan.fingerprint, describe_result(found))
        return found
    found = reusable(cell)
    if found:
        log.info("%s: finished %s; rerun=true does it again", cell.plan.fingerprint, found["finished"])
    return found
