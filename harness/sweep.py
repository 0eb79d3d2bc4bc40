"""A grid of cells becomes unique plans; each is run once, or its finished record is used again."""

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness import console, listing, provenance, record, replicates, report
from harness.cells import Cell, Run, failure, left_failed, reusable, run_or_wait, told
from harness.course import Begin, Course
from harness.errors import ConfigFault, DataFault, HarnessError, ModelFault, RunFault, raise_together
from harness.plan import digest, plain, read
from harness.schema import Stage

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def cells_of(grid: "Iterable[tuple[Sequence[str], Callable[[], DictConfig]]]", name: str) -> list[Cell]:
    """Cells of a whole grid, each checked; faults of all cells are raised together, each said once.

    Args:
        grid: overrides of each cell, and what composes it.
        name: of the sweep, where the configuration gives none.

    Raises:
        ConfigFault: some cell cannot work; nothing has run then.
    """
    cells, faults = [], dict[str, str]()
    for overrides, compose in grid:
        try:
            plan, options = read(compose())
        except HarnessError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, " ".join(overrides))
            continue
        cells.append(Cell(tuple(overrides), plan, replace(options, sweep_name=options.sweep_name or name)))
    raise_together([f"{line} [in {where}]" if where else line for line, where in faults.items()])
    return cells


def check_stage(cells: Sequence[Cell]) -> None:
    """A grid can be run or planned; the other stages look at single runs."""
    for cell in cells:
        if cell.options.stage.value not in ("run", "plan"):
            raise ConfigFault(f"stage={cell.options.stage.value} takes no sweep; leave out -m")


def unique(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each plan, runs on one base model beside each other, in grid order otherwise."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.plan.fingerprint, cell)
    of = {fingerprint: digest(plain(cell.plan.model)) for fingerprint, cell in first.items()}
    order = {model: i for i, model in enumerate(dict.fromkeys(of.values()))}
    return sorted(first.values(), key=lambda cell: order[of[cell.plan.fingerprint]])


def work(cells: Sequence[Cell], begin: Begin) -> "list[JobReturn]":
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
    course = Course(cells[0].options.runs_dir, cells[0].options.max_failures)
    folder = listing.keep(cells)
    with listing.noted_command(folder):
        results, earlier = attempt(cells, begin, folder, course)
    conclude(cells, results, earlier, folder, course)
    return [results[cell.plan.fingerprint] for cell in cells]


def attempt(
    cells: Sequence[Cell], begin: Begin, folder: Path, course: Course
) -> "tuple[dict[str, JobReturn], frozenset[str]]":
    """Hydra's result of each unique plan, and the fingerprints of those whose records are of an earlier command.

    A plan has no result where the course was over before it could start.

    Raises:
        ModelFault: some plan does not fit its model; nothing has run then.
    """
    from hydra.core.utils import JobStatus

    plans = [_as_found(cell) for cell in unique(cells)]
    results: dict[str, JobReturn] = {}
    for cell in plans:
        if kept := reusable(cell):
            log.info("%s: finished %s; rerun=true does it again", cell.plan.fingerprint, kept["finished"])
            results[cell.plan.fingerprint] = _result(cell, kept)
        elif kept := left_failed(cell):
            log.warning("%s: failed %s; sweep.retry=failed runs it again", cell.plan.fingerprint, kept["finished"])
            results[cell.plan.fingerprint] = _result(cell, failure(kept))
    earlier = frozenset(results)
    todo = [cell for cell in plans if cell.plan.fingerprint not in earlier]
    _announce(cells, plans, results, course.expect(todo) if todo else "")
    check_rows(todo)
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


def _result(cell: Cell, value: "dict[str, Any] | RunFault") -> "JobReturn":
    from hydra.core.utils import JobReturn, JobStatus

    status = JobStatus.FAILED if isinstance(value, RunFault) else JobStatus.COMPLETED
    return JobReturn(overrides=cell.overrides, status=status, _return_value=value)


def _announce(cells: Sequence[Cell], plans: Sequence[Cell], results: "Mapping[str, JobReturn]", time: str) -> None:
    """What will be run, and for how long, before any of it is."""
    from hydra.core.utils import JobStatus

    failed = sum(result.status is JobStatus.FAILED for result in results.values())
    parts = [f"{len(cells)} cells, {len(plans)} runs, {len(results) - failed} of them finished earlier"]
    if failed:
        parts.append(f"{failed} failed earlier and left so")
    if sharing := len(cells) - len(plans):
        parts.append("1 cell shares the run of another" if sharing == 1 else f"{sharing} cells share runs of others")
    parts.append(f"{len(plans) - len(results)} to run" + (f" ({time})" if time else ""))
    log.info("%s; records in %s", ", ".join(parts), _shown(cells[0].options.runs_dir))


def conclude(
    cells: Sequence[Cell], results: "Mapping[str, JobReturn]", earlier: frozenset[str], folder: Path, course: Course
) -> None:
    """Show every cell.

    Raises:
        RunFault: some run failed, or was not started.
    """
    from hydra.core.utils import JobStatus

    whole = finish(cells, earlier, folder, course.idle, course.answers)
    failed = sum(result.status is JobStatus.FAILED for result in results.values())
    if course.over:
        raise RunFault(
            f"more runs failed ({course.failed}) than sweep.max_failures={course.most_failures}: {len(course.idle)} "
            "were not started; mend the cause and run the same command again, or raise sweep.max_failures"
        )
    if failed or not whole:
        raise RunFault(f"{failed} of {len(results)} runs failed; their records hold the tracebacks")


def check_rows(cells: Sequence[Cell]) -> None:
    """Read every data set of these cells once, so that bad rows show before a model is loaded.

    Raises:
        DataFault: lists the faults of every data set.
    """
    from harness import data

    faults: dict[str, list[str]] = {}
    for cell in cells:
        key = digest([cell.plan.as_dict()["data"], dict(cell.plan.inputs)])
        if key in faults:
            continue
        try:
            data.read(cell.plan.data)
            faults[key] = []
        except DataFault as error:
            faults[key] = [str(error)]
    raise_together([fault for found in faults.values() for fault in found], DataFault)


def check_models(cells: Sequence[Cell]) -> None:
    """Put every method on the skeleton of its model, so that a misfit shows before anything trains.

    Raises:
        ModelFault: lists every misfit.
    """
    if not cells:
        return  # a sweep that only looks up its records is instant: no torch
    from harness import estimate

    faults = []
    for cell in cells:
        try:
            estimate.count_plan(cell.plan)
        except HarnessError as error:
            faults.append(f"{error} [in {cell.name}]")
    raise_together(faults, ModelFault)


def run_single(cell: Cell, run: Run) -> dict[str, Any]:
    """One run on its own, with its table.

    Raises:
        RunFault: it fails, or failed earlier and ``sweep.retry=none`` leaves it so.
    """
    cell = _as_found(cell)
    if kept := left_failed(cell):
        finish([cell], frozenset({cell.plan.fingerprint}), None)
        raise RunFault(f"{failure(kept)}; sweep.retry=failed runs it again")
    done = reusable(cell) is not None
    if not done:
        check_rows([cell])
        check_models([cell])
    kept = run_or_wait(cell, run)
    by_another = kept["owner"] != provenance.owner()
    reused = frozenset({cell.plan.fingerprint} if done or by_another else ())
    finish([cell], reused, None, answers={} if done or not by_another else {cell.plan.fingerprint: told(kept)})
    return kept


def finish(
    cells: Sequence[Cell],
    reused: frozenset[str],
    folder: Path | None,
    idle: Collection[str] = (),
    answers: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Print the table of the cells, write it into ``folder``; whether every cell has a finished record.

    Args:
        reused: fingerprints whose records are not of this command.
        idle: fingerprints that this command did not come to.
        answers: who made the results that other processes made meanwhile, by fingerprint.
    """
    found = {cell.plan.fingerprint: cell.on_record() for cell in cells}
    records = {fingerprint: kept for fingerprint, kept in found.items() if kept is not None}
    common = report.shared_overrides([cell.overrides for cell in cells])
    shown = [
        report.Cell(
            overrides=cell.name,
            fingerprint=cell.plan.fingerprint,
            method=cell.plan.method,
            setting=report.setting_of(cell.name, cell.plan.method, common),
            reused=cell.plan.fingerprint in reused,
            idle=cell.plan.fingerprint in idle,
            answer=answers.get(cell.plan.fingerprint),
        )
        for cell in cells
    ]
    table = report.table(shown, records)
    over_seeds = _print(table, records)
    if folder is not None:
        report.write_all(folder, table, over_seeds)
        log.info("%s; the table as CSV and Markdown: %s", report.outcome(table), _shown(folder))
    return all(f in records and records[f]["status"] == "finished" for f in found)


def _print(table: report.Table, records: Mapping[str, Mapping[str, Any]]) -> report.Table | None:
    """Show the table, and beneath it what its runs come to over seeds, which is returned."""
    console.to_console(table)
    over_seeds = replicates.table(table, records)
    if over_seeds is not None:
        console.to_console(over_seeds, title=replicates.TITLE)
    return over_seeds


def show_all(runs_dir: Path) -> None:
    """Tabulate every record below ``runs_dir``, with the same as CSV and Markdown beside them.

    Raises:
        ConfigFault: there is none.
    """
    records = record.all_records(runs_dir)
    if not records:
        raise ConfigFault(f"runs_dir={runs_dir} holds no record; run something first, or set runs_dir")
    by_fingerprint = {kept["fingerprint"]: kept for kept in records}
    table = report.table(report.cells_of(records), by_fingerprint)
    report.write_all(runs_dir, table, _print(table, by_fingerprint))
    log.info("%s; the table as CSV and Markdown: %s", report.outcome(table), _shown(runs_dir))


def show_plan(cells: Sequence[Cell]) -> None:
    """Print the grid with trainable parameters from the meta device; train nothing.

    Raises:
        ModelFault: a method does not fit its model; all of them are listed.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from harness import estimate

    plans = unique(cells)
    table = Table(title=f"{len(cells)} cells, {len(plans)} runs", title_justify="left")
    for column in ("run", "cells", "trainable", "share", "total", "finished earlier"):
        table.add_column(column, justify="left" if column in ("run", "cells") else "right", overflow="fold")
    sharing, faults = defaultdict[str, list[str]](list), []
    for cell in cells:
        sharing[cell.plan.fingerprint].append(cell.name)
    for cell in plans:
        try:
            counts = estimate.count_plan(cell.plan)
        except HarnessError as error:
            faults.append(f"{error} [in {cell.name}]")
            continue
        table.add_row(
            cell.plan.fingerprint,
            escape("\n".join(sharing[cell.plan.fingerprint])),
            f"{counts.trainable:,}",
            f"{counts.share:.3%}",
            f"{counts.total:,}",
            "yes" if reusable(cell) else "no",
        )
    raise_together(faults)
    Console(file=sys.stdout).print(table)


def _shown(path: Path) -> str:
    """The path as short as it is clear: relative to the working folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
