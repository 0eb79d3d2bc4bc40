"""What a command shows when its runs have ended."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import RunFault
from harness.report import console, replicates
from harness.report.cells import TableCell, setting_of, shared_overrides
from harness.report.files import outcome_line, write_tables
from harness.report.table import Table, build_table
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome
from harness.sweep.reuse import other_code
from harness.sweep.worklist import Worklist

log = logging.getLogger(__name__)


def conclude(
    cells: Sequence[Cell],
    outcomes: Mapping[str, Outcome],
    earlier: frozenset[str],
    folder: Path,
    worklist: Worklist,
) -> None:
    """Show every cell.

    Args:
        earlier: fingerprints whose records are not this command's.

    Raises:
        RunFault: some run failed, or was not started.
    """
    complete = show_results(cells, earlier, folder, worklist.not_started, worklist.made_by)
    failed = sum(outcome.failed for outcome in outcomes.values())
    if worklist.over:
        raise RunFault(
            f"more runs failed ({worklist.failed}) than sweep.max_failures={worklist.max_failures}: "
            f"{len(worklist.not_started)} were not started; fix the cause and rerun the same command, or raise "
            "sweep.max_failures"
        )
    if failed or not complete:
        raise RunFault(f"{failed} of {len(outcomes)} runs failed; their records hold the tracebacks")


def show_results(
    cells: Sequence[Cell],
    reused: frozenset[str],
    folder: Path | None,
    not_started: Collection[str] = (),
    made_by: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Print the table of the cells and write it into ``folder``; whether every cell has a finished record.

    Args:
        reused: fingerprints whose records are not this command's.
        not_started: fingerprints of plans that this command did not start.
        made_by: by fingerprint, which other process made the result during this command.
    """
    found = {cell.plan.fingerprint: cell.read_record() for cell in cells}
    records = {fingerprint: record for fingerprint, record in found.items() if record is not None}
    common = shared_overrides([cell.overrides for cell in cells])
    rows = [
        TableCell(
            overrides=cell.name,
            fingerprint=cell.plan.fingerprint,
            method=cell.plan.method,
            setting=setting_of(cell.name, cell.plan.method, common),
            reused=cell.plan.fingerprint in reused,
            not_started=cell.plan.fingerprint in not_started,
            answered_by=made_by.get(cell.plan.fingerprint),
            other_code=other_code(records[cell.plan.fingerprint]) if cell.plan.fingerprint in records else None,
        )
        for cell in cells
    ]
    table = build_table(rows, records)
    show_table(table, records, folder)
    return all(f in records and records[f]["status"] == "finished" for f in found)


def show_table(table: Table, records: Mapping[str, Mapping[str, Any]], folder: Path | None) -> None:
    """Write the table and the summary of its runs over seeds into ``folder``, then print both."""
    over_seeds = replicates.seed_table(table, records)
    if folder is not None:
        write_tables(folder, table, over_seeds)  # first: whatever happens to the console, the files are there
    console.to_console(table)
    if over_seeds is not None:
        console.to_console(over_seeds, title=replicates.TITLE)
    if folder is not None:
        log.info("%s; the table as CSV and Markdown: %s", outcome_line(table), short_path(folder))


def short_path(path: Path) -> str:
    """The path relative to the working folder if it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
