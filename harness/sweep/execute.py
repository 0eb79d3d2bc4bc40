"""A grid of cells becomes unique plans; each is run once, or its finished record is used again."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Stage
from harness.errors import RunFault
from harness.record import provenance
from harness.stages.plan import show_plan
from harness.sweep import manifest
from harness.sweep.cells import (
    Cell,
    RunFunction,
    describe_result,
    failed_and_not_retried,
    failure_of,
    reusable,
    run_or_wait,
)
from harness.sweep.grid import check_data, check_models, check_stage, unique_plans
from harness.sweep.summary import conclude, short_path, show_results
from harness.sweep.worklist import Begin, Worklist

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

log = logging.getLogger(__name__)


def run_sweep(cells: Sequence[Cell], begin: Begin) -> "list[JobReturn]":
    """Run each unique plan of the grid once, then show every cell; one Hydra result per cell.

    Args:
        begin: runs cells, keeping its notes in the folder; yields Hydra's result of each as it ends, a
            failure included.

    Raises:
        HarnessError: some cell cannot work; nothing has run then.
        RunFault: some run failed; the others have run unless too many failed, and the table has shown which.
    """
    from hydra.core.utils import JobReturn, JobStatus

    check_stage(cells)
    if cells[0].options.stage is Stage.plan:
        show_plan(cells)
        return [JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED) for cell in cells]
    course = Worklist(cells[0].options.runs_dir, cells[0].options.max_failures)
    folder = manifest.keep_manifest(cells)
    with manifest.recorded_command(folder):
        results, earlier = run_cells(cells, begin, folder, course)
    conclude(cells, results, earlier, folder, course)
    return [results[cell.plan.fingerprint] for cell in cells]


def run_cells(
    cells: Sequence[Cell], begin: Begin, folder: Path, course: Worklist
) -> "tuple[dict[str, JobReturn], frozenset[str]]":
    """Hydra's result of each unique plan, and the fingerprints of those whose records are of an earlier command.

    A plan has no result where the course was over before it could start.

    Raises:
        ModelFault: some plan does not fit its model; nothing has run then.
    """
    from hydra.core.utils import JobStatus

    plans = [_as_found(cell) for cell in unique_plans(cells)]
    results: dict[str, JobReturn] = {}
    for cell in plans:
        if kept := reusable(cell):
            log.info("%s: finished %s; rerun=true does it again", cell.plan.fingerprint, kept["finished"])
            results[cell.plan.fingerprint] = _as_result(cell, kept)
        elif kept := failed_and_not_retried(cell):
            log.warning("%s: failed %s; sweep.retry=failed runs it again", cell.plan.fingerprint, kept["finished"])
            results[cell.plan.fingerprint] = _as_result(cell, failure_of(kept))
    earlier = frozenset(results)
    todo = [cell for cell in plans if cell.plan.fingerprint not in earlier]
    _announce_sweep(cells, plans, results, course.expect(todo) if todo else "")
    check_data(todo)
    check_models(todo)
    for cell, result in course.follow(todo, begin, folder):
        results[cell.plan.fingerprint] = result
        if result.status is JobStatus.FAILED:
            log.error("%s failed: %s", cell.name, result._return_value)
    course.idle |= {cell.plan.fingerprint for cell in todo} - results.keys()
    return results, earlier | course.answers.keys()


def _as_found(cell: Cell) -> Cell:
    """The cell with the number of attempts at its plan that are on record now."""
    kept = cell.on_record()
    return replace(cell, tries=kept["attempt"] if kept else 0)


def _as_result(cell: Cell, value: "dict[str, Any] | RunFault") -> "JobReturn":
    from hydra.core.utils import JobReturn, JobStatus

    status = JobStatus.FAILED if isinstance(value, RunFault) else JobStatus.COMPLETED
    return JobReturn(overrides=cell.overrides, status=status, _return_value=value)


def _announce_sweep(
    cells: Sequence[Cell], plans: Sequence[Cell], results: "Mapping[str, JobReturn]", time: str
) -> None:
    """What will be run, and for how long, before any of it is."""
    from hydra.core.utils import JobStatus

    failed = sum(result.status is JobStatus.FAILED for result in results.values())
    parts = [f"{len(cells)} cells, {len(plans)} runs, {len(results) - failed} of them finished earlier"]
    if failed:
        parts.append(f"{failed} failed earlier and left so")
    if sharing := len(cells) - len(plans):
        parts.append("1 cell shares the run of another" if sharing == 1 else f"{sharing} cells share runs of others")
    parts.append(f"{len(plans) - len(results)} to run" + (f" ({time})" if time else ""))
    log.info("%s; records in %s", ", ".join(parts), short_path(cells[0].options.runs_dir))


def run_single(cell: Cell, run: RunFunction) -> dict[str, Any]:
    """One run on its own, with its table.

    Raises:
        RunFault: it fails, or failed earlier and ``sweep.retry=none`` leaves it so.
    """
    cell = _as_found(cell)
    if kept := failed_and_not_retried(cell):
        show_results([cell], frozenset({cell.plan.fingerprint}), None)
        raise RunFault(f"{failure_of(kept)}; sweep.retry=failed runs it again")
    done = reusable(cell) is not None
    if not done:
        check_data([cell])
        check_models([cell])
    kept = run_or_wait(cell, run)
    by_another = kept["owner"] != provenance.owner()
    reused = frozenset({cell.plan.fingerprint} if done or by_another else ())
    show_results(
        [cell], reused, None, answers={} if done or not by_another else {cell.plan.fingerprint: describe_result(kept)}
    )
    return kept
