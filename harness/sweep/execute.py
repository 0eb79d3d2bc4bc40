"""Run each unique plan of a grid once, or reuse its finished record, and show every cell."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.schema import Prune
from harness.errors import ConfigFault, RunFault
from harness.record import provenance
from harness.report.texts import short_path
from harness.runtime.terminal import counted
from harness.sweep import manifest
from harness.sweep.cells import Cell
from harness.sweep.claim import RunFunction, run_cell
from harness.sweep.grid import check_data, check_models, unique_plans
from harness.sweep.outcome import Outcome, Status
from harness.sweep.reuse import describe_result, describe_reuse, failed_and_not_retried, failure_of, reusable
from harness.sweep.reused_runs import label_and_send
from harness.sweep.rounds import Judge, Race, judge_all, was_pruned
from harness.sweep.settled_threads import settle_threads
from harness.sweep.summary import conclude, show_next, show_results
from harness.sweep.worklist import Dispatch, Worklist

log = logging.getLogger(__name__)


def run_sweep(cells: Sequence[Cell], dispatch: Dispatch) -> list[Outcome]:
    """Run each unique plan of the grid once, then show every cell; one outcome per cell.

    Raises:
        HarnessError: some cell cannot work; nothing has run.
        RunFault: some run failed. The others have run unless too many failed; the table has shown which.
    """
    worklist = Worklist.of(cells[0].options)
    folder = manifest.keep_manifest(cells)
    settle_threads(folder)
    with manifest.recorded_command(folder):
        outcomes, earlier = run_cells(cells, dispatch, folder, worklist)
    conclude(cells, outcomes, earlier, folder, worklist)
    return [outcomes[cell.plan.fingerprint] for cell in cells]


def run_cells(
    cells: Sequence[Cell], dispatch: Dispatch, folder: Path, worklist: Worklist, judge: Judge = judge_all
) -> tuple[dict[str, Outcome], frozenset[str]]:
    """The outcome of each unique plan, and the fingerprints whose records are not this command's.

    A plan that could not be started because too many runs had failed, or the time was over, has no outcome.

    Args:
        judge: with sweep.prune, says who of a group of runs goes on.

    Raises:
        DataFault: some data set cannot be used; nothing has run.
        ModelFault: some plan does not fit its model; nothing has run.
    """
    plans = [cell.with_attempts() for cell in unique_plans(cells)]
    outcomes = {cell.plan.fingerprint: outcome for cell in plans if (outcome := _earlier_outcome(cell))}
    earlier = frozenset(outcomes)
    todo = [cell for cell in plans if cell.plan.fingerprint not in earlier]
    pruning = cells[0].options.prune is not Prune.none
    worklist.name_by(cells)
    worklist.at_most = pruning
    _announce_sweep(cells, plans, outcomes, worklist.add(todo) if todo else "")
    check_data(todo)
    check_models(todo)
    names = {cell.plan.fingerprint: worklist.label(cell) for cell in todo}
    race = Race(plans, outcomes, judge) if pruning else None
    ended = race.run(dispatch, folder, worklist) if race else worklist.follow(todo, dispatch, folder)
    with worklist.within_time():
        for outcome in ended:
            outcomes[outcome.fingerprint] = outcome
            if outcome.failed:
                log.error("%s failed: %s", names[outcome.fingerprint], outcome.message)
    worklist.not_started |= {cell.plan.fingerprint for cell in todo if not _begun(cell)} - outcomes.keys()
    reused = earlier | worklist.made_by.keys()
    records = {fingerprint: outcomes[fingerprint].record for fingerprint in reused & outcomes.keys()}
    label_and_send((cell, record) for cell in plans if (record := records.get(cell.plan.fingerprint)))
    return outcomes, reused


def _begun(cell: Cell) -> bool:
    """Whether the plan was attempted since the command began."""
    record = cell.read_record()
    return record is not None and record["attempt"] > (cell.attempts or 0)


def _earlier_outcome(cell: Cell) -> Outcome | None:
    """The outcome of an earlier command that this one keeps."""
    fingerprint = cell.plan.fingerprint
    if record := reusable(cell):
        log.info("%s: %s", fingerprint, describe_reuse(record))
        return Outcome(fingerprint, Status.finished, record=record)
    if record := failed_and_not_retried(cell):
        log.warning("%s: failed %s; sweep.retry=failed runs it again", fingerprint, record["finished"])
        return Outcome(fingerprint, Status.failed, str(failure_of(record)))
    return None


def _announce_sweep(
    cells: Sequence[Cell], plans: Sequence[Cell], earlier: Mapping[str, Outcome], duration: str
) -> None:
    """Say what will run and for how long, before any of it does."""
    failed = sum(outcome.failed for outcome in earlier.values())
    parts = [
        f"{counted(len(cells), 'cell')}, {counted(len(plans), 'run')}, {len(earlier) - failed} of them finished earlier"
    ]
    if failed:
        parts.append(f"{failed} failed earlier (not retried: sweep.retry=none)")
    if sharing := len(cells) - len(plans):
        parts.append("1 cell shares the run of another" if sharing == 1 else f"{sharing} cells share runs of others")
    todo = [cell for cell in plans if cell.plan.fingerprint not in earlier]
    if pruned := sum(was_pruned(cell) for cell in todo):
        parts.append(f"{pruned} pruned earlier")
    parts.append(f"{len(todo) - pruned} to run" + (f" ({duration})" if duration else ""))
    log.info("%s; records in %s", ", ".join(parts), short_path(cells[0].options.runs_dir))


def run_single(cell: Cell, run: RunFunction) -> dict[str, Any]:
    """Run one plan that is not part of a sweep, and show its table.

    Raises:
        RunFault: it fails, or failed earlier and ``sweep.retry=none`` does not retry it.
    """
    if cell.options.prune is not Prune.none:
        raise ConfigFault(f"sweep.prune={cell.options.prune.value} compares the cells of a sweep; add -m")
    if cell.options.select.split is not None:
        raise ConfigFault(f"select.split={cell.options.select.split} chooses among the cells of a sweep; add -m")
    if cell.options.refine.seeds is not None:
        raise ConfigFault(f"refine.seeds={cell.options.refine.seeds} follows a grid of learning rates; add -m")
    cell = cell.with_attempts()
    if failed := failed_and_not_retried(cell):
        show_results([cell], frozenset({cell.plan.fingerprint}), None)
        raise RunFault(f"{failure_of(failed)}; sweep.retry=failed runs it again")
    finished_earlier = reusable(cell) is not None
    if not finished_earlier:
        check_data([cell])
        check_models([cell])
    record = run_cell(cell, run, wait=True)
    by_another = not finished_earlier and record["owner"] != provenance.owner()
    reused = frozenset({cell.plan.fingerprint} if finished_earlier or by_another else ())
    if reused:
        label_and_send([(cell, record)])
    show_results([cell], reused, None, made_by={cell.plan.fingerprint: describe_result(record)} if by_another else {})
    show_next(cell, record)
    return record
