"""What a command shows when its runs have ended."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import RunFault, first_line
from harness.record import store
from harness.report import console
from harness.report.build import Request, build_report
from harness.report.cells import TableCell, setting_of, shared_overrides, split_overrides
from harness.report.choose import runs_of
from harness.report.model import Report
from harness.report.overview import overview_table
from harness.report.table import build_table, outcome_line
from harness.report.texts import short_path
from harness.report.write import PAGE_NAME, write_report
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome
from harness.sweep.reuse import other_code
from harness.sweep.sweep_report import content_of
from harness.sweep.worklist import Worklist

log = logging.getLogger(__name__)

AGAIN = "python -m harness stage=report report.sweep="


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
    if worklist.failed_too_often:
        raise RunFault(
            f"more runs failed ({worklist.failed}) than sweep.max_failures={worklist.max_failures}: "
            f"{len(worklist.not_started)} were not started; fix the cause and rerun the same command, or raise "
            "sweep.max_failures"
        )
    plans = {cell.plan.fingerprint: cell for cell in cells}
    left = [cell for cell in plans.values() if _is_left(cell)]
    if worklist.out_of_time and left:
        raise RunFault(
            f"sweep.max_hours={worklist.max_hours:g} reached: {len(left)} of {len(plans)} runs are left "
            f"({worklist.time_for(left)}); run the same command again to resume"
        )
    if failed or not complete:
        raise RunFault(f"{failed} of {len(outcomes)} runs failed; their records hold the tracebacks")


def _is_left(cell: Cell) -> bool:
    record = cell.read_record()
    return record is None or record["status"] not in ("finished", "failed", "pruned")


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
    table = build_table(rows, records, [word for word in split_overrides(cells[0].name) if word in common])
    # Whatever happens to the console, the files are there.
    report = None if folder is None else _written_report(cells, folder, not_started)
    console.to_console(table)
    if report is not None and folder is not None:
        for group in report.groups:
            if any(len(row.seeds) > 1 for row in group.configurations):
                console.to_console(overview_table(group), title=f"over seeds: {group.title}")
        for shape in report.shapes:
            log.info("%s: %s", shape.title, shape.sentence)
        log.info("%s; report: %s", outcome_line(table), short_path(folder / PAGE_NAME))
    return all(f in records and records[f]["status"] in ("finished", "pruned") for f in found)


def show_next(cell: Cell, record: Mapping[str, Any]) -> None:
    """Say where a single run's files are, and which commands may come next."""
    files = [store.RECORD_NAME]
    kept = bool(record["adapter"]) and record.get("kept") != "record"
    files += [f"{record['adapter']['path']}/"] if kept else []
    files += [record["predictions"]] if record["predictions"] else []
    log.info("%s: %s", short_path(cell.folder), ", ".join(files))
    runs_dir = cell.options.runs_dir
    where = [] if runs_dir == Path("runs").absolute() else [shlex.quote(f"runs_dir={short_path(runs_dir)}")]
    short = cell.plan.fingerprint[:6]
    commands = [[f"stage=generate run={short} prompt='...'", *where]] if kept else []
    commands += [[f"stage=export run={short} export.dir=exported", *where]] if kept else []
    commands += [["stage=report", *where]]
    for number, words in enumerate(commands):
        log.info("%s python -m harness %s", "next:" if number == 0 else "     ", " ".join(words))


def _written_report(cells: Sequence[Cell], folder: Path, not_started: Collection[str]) -> Report | None:
    """The report of the sweep, written into its folder; None, with what to do about it, if it cannot be made.

    Runs of days have ended by now: an error here must not hide their results.
    """
    sweep = content_of(cells, folder)
    shown = [fingerprint for fingerprint in sweep.cells if fingerprint not in not_started]
    request = Request(
        chosen=f"all runs of the sweep in {short_path(folder)}",
        command=f"{AGAIN}{folder}",
        sections=tuple(cells[0].options.report.sections),
    )
    try:
        runs = runs_of(cells[0].options.runs_dir, shown)
        report = build_report(runs, sweep.added_to(request, frozenset(run.fingerprint for run in runs), not_started))
        write_report(report, folder)
    except Exception as error:
        log.error("the report could not be written (%s); once that is fixed: %s%s", first_line(error), AGAIN, folder)
        return None
    return report
