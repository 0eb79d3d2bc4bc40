"""What a command shows when its runs have ended."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import RunFault
from harness.report import console, replicates
from harness.report.cells import TableCell, setting_of, shared_overrides
from harness.report.files import outcome_line, write_tables
from harness.report.table import Table, build_table
from harness.sweep.cells import Cell
from harness.sweep.worklist import Worklist

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

log = logging.getLogger(__name__)


def conclude(
    cells: Sequence[Cell], results: "Mapping[str, JobReturn]", earlier: frozenset[str], folder: Path, course: Worklist
) -> None:
    """Show every cell.

    Raises:
        RunFault: some run failed, or was not started.
    """
    from hydra.core.utils import JobStatus

    whole = show_results(cells, earlier, folder, course.idle, course.answers)
    failed = sum(result.status is JobStatus.FAILED for result in results.values())
    if course.over:
        raise RunFault(
            f"more runs failed ({course.failed}) than sweep.max_failures={course.most_failures}: {len(course.idle)} "
            "were not started; mend the cause and run the same command again, or raise sweep.max_failures"
        )
    if failed or not whole:
        raise RunFault(f"{failed} of {len(results)} runs failed; their records hold the tracebacks")


def show_results(
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
    common = shared_overrides([cell.overrides for cell in cells])
    shown = [
        TableCell(
            overrides=cell.name,
            fingerprint=cell.plan.fingerprint,
            method=cell.plan.method,
            setting=setting_of(cell.name, cell.plan.method, common),
            reused=cell.plan.fingerprint in reused,
            not_started=cell.plan.fingerprint in idle,
            answered_by=answers.get(cell.plan.fingerprint),
        )
        for cell in cells
    ]
    table = build_table(shown, records)
    over_seeds = print_table(table, records)
    if folder is not None:
        write_tables(folder, table, over_seeds)
        log.info("%s; the table as CSV and Markdown: %s", outcome_line(table), short_path(folder))
    return all(f in records and records[f]["status"] == "finished" for f in found)


def print_table(table: Table, records: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Show the table, and beneath it what its runs come to over seeds, which is returned."""
    console.to_console(table)
    over_seeds = replicates.seed_table(table, records)
    if over_seeds is not None:
        console.to_console(over_seeds, title=replicates.TITLE)
    return over_seeds


def short_path(path: Path) -> str:
    """The path as short as it is clear: relative to the working folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
