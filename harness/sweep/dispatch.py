"""Run cells one after another in this process, or as jobs on a launcher's workers."""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.schema import Prune
from harness.models.hub import COMMIT
from harness.plan.spec import digest
from harness.record import provenance
from harness.record.files import atomic_write_text
from harness.record.redact import redactor
from harness.runtime import signals
from harness.runtime.status_line import STATUS
from harness.sweep.cells import Cell
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import Launcher
from harness.sweep.launchers.worker import ConfigSource, WorkerJob
from harness.sweep.outcome import Outcome, Status
from harness.sweep.worklist import Worklist

log = logging.getLogger(__name__)


def run_here(
    run: Callable[[Cell], Outcome], cells: Sequence[Cell], folder: Path, worklist: Worklist
) -> Iterator[Outcome]:
    """Run the cells one after another with ``run``; a ``Dispatch`` once ``run`` is bound."""
    for number, cell in enumerate(cells):
        if worklist.over:
            return
        outcome = worklist.outcome_of_another(cell)
        if outcome is None:
            heading = f"[{worklist.place}] {worklist.label(cell)}"
            log.info("%s (%s); left: %s", heading, cell.plan.fingerprint, worklist.time_for(cells[number:]))
            STATUS.heading = redactor()(heading)
            try:
                outcome = run(cell)
            finally:
                STATUS.heading = ""
        yield outcome


def run_on_workers(
    launcher: Launcher, source: ConfigSource, cells: Sequence[Cell], folder: Path, worklist: Worklist
) -> Iterator[Outcome]:
    """Run the cells on the launcher's workers; a ``Dispatch`` once launcher and source are bound."""
    stop = folder / "stops" / uuid.uuid4().hex[:12]  # of this command, not of others on the same sweep
    here = not launcher.elsewhere
    jobs = {cell.plan.fingerprint: job_of(cell, source, folder, stop, here) for cell in cells}
    by_fingerprint = {cell.plan.fingerprint: cell for cell in cells}
    for outcome in _outcomes(launcher, jobs, by_fingerprint, folder, stop):
        if outcome.status is Status.not_started:
            continue
        if outcome.status is Status.held:
            yield outcome
            continue
        cell = by_fingerprint[outcome.fingerprint]
        if outcome.status is Status.finished:
            outcome = replace(outcome, record=cell.read_record())
        if outcome.made_by:
            worklist.made_by[outcome.fingerprint] = outcome.made_by
        _announce(outcome, cell, worklist)
        yield outcome
        if worklist.over and not stop.exists():
            atomic_write_text(stop, "")  # a file, because it also reaches jobs that wait in a queue


def _announce(outcome: Outcome, cell: Cell, worklist: Worklist) -> None:
    remark = " ".join(text for text in (outcome.message, outcome.made_by) if text)
    log.info(
        "[%s] %s (%s): %s after %.0f s%s",
        *(worklist.place, worklist.label(cell), outcome.fingerprint),
        *(outcome.status.value, outcome.seconds),
        f": {remark}" if remark and outcome.status is Status.finished else "",
    )


def _outcomes(
    launcher: Launcher, jobs: Mapping[str, WorkerJob], cells: Mapping[str, Cell], folder: Path, stop: Path
) -> Iterator[Outcome]:
    """The launcher's outcomes. Runs whose worker died, or is stopped with this command, are marked interrupted.

    Args:
        stop: written once the command's time is over, so that runs that wait in a queue do not start.
    """
    running = set(jobs)

    def interrupt(fingerprint: str, reason: str) -> None:
        worker.mark_interrupted(jobs[fingerprint], cells[fingerprint].options.runs_dir, reason)

    try:
        for outcome in launcher.run(list(jobs.values()), folder):
            running.remove(outcome.fingerprint)
            if outcome.status is Status.died:
                interrupt(outcome.fingerprint, outcome.message)
            yield outcome
    except BaseException as error:
        if isinstance(error, signals.TimeIsUp):
            atomic_write_text(stop, "")
        if not launcher.outlives:
            launcher.close()
            for fingerprint in running:
                interrupt(fingerprint, "the command that started it was stopped")
        raise


def job_of(cell: Cell, source: ConfigSource, folder: Path, stop: Path, here: bool = True) -> WorkerJob:
    """The cell as text, for a worker to compose again.

    Args:
        folder: of the sweep.
        stop: a file; once it exists, no further run starts.
        here: the worker is on this machine.
    """
    plan = cell.plan
    revisions = {"model.revision": plan.model.revision, "data.revision": plan.data.revision}
    pins = [f"{key}={value}" for key, value in revisions.items() if value and COMMIT.fullmatch(value)]
    if cell.options.pause_after is not None or cell.options.prune is not Prune.none:
        paused = "null" if cell.options.pause_after is None else cell.options.pause_after
        pins += [f"sweep.pause_after={paused}", f"rerun={str(cell.options.rerun).lower()}"]
    return WorkerJob(
        fingerprint=cell.plan.fingerprint,
        name=cell.name,
        model=digest(cell.plan.as_dict()["model"]),
        overrides=cell.overrides,
        sweep_name=cell.options.sweep_name,
        source=source,
        code=provenance.code_version(),
        folder=str(folder),
        attempts=cell.attempts,
        stop=str(stop),
        here=here,
        pins=tuple(pins),
    )
