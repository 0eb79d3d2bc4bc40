"""A grid of cells becomes unique plans; each is run once, or its finished record is used again."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import parallel, provenance, record, report
from harness.errors import ConfigFault, DataFault, HarnessError, ModelFault, RunFault, raise_together
from harness.plan import Options, Plan, digest, read
from harness.schema import Stage

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

IDLE_OVERRIDES = ("runs_dir=", "rerun=", "stage=", "tracker", "sweep.", "export.", "hydra", "trainer.threads=")

Run = Callable[[Plan, Options, str], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: its overrides and the plan that they make; cells may share a plan."""

    overrides: tuple[str, ...]
    plan: Plan
    options: Options

    @property
    def name(self) -> str:
        """The overrides as typed, less those of options, which make no difference to a result."""
        shown = [text for text in self.overrides if not text.lstrip("+~").startswith(IDLE_OVERRIDES)]
        return " ".join(shown) or self.plan.method


def cell_from_hydra(plan: Plan, options: Options) -> tuple[Cell, bool]:
    """The cell that Hydra is running now, and whether it is one of a sweep's."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    in_sweep = not OmegaConf.is_missing(hydra.job, "num")
    return Cell(tuple(hydra.overrides.task), plan, options), in_sweep


def cells_of(composed: "Sequence[tuple[Sequence[str], DictConfig]]", name: str) -> list[Cell]:
    """Cells of a whole grid, each checked; faults of all cells are raised together, each said once.

    Raises:
        ConfigFault: some cell cannot work; nothing has run then.
    """
    cells, faults = [], dict[str, str]()
    for overrides, config in composed:
        try:
            plan, options = read(config)
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
    models = list(dict.fromkeys(digest(cell.plan.as_dict()["model"]) for cell in first.values()))
    return sorted(first.values(), key=lambda cell: models.index(digest(cell.plan.as_dict()["model"])))


def reusable(cell: Cell) -> dict[str, Any] | None:
    """The finished record of this cell's plan by this code, unless it is to be done again."""
    return parallel.agreed(lambda: _reusable(cell))


def _reusable(cell: Cell) -> dict[str, Any] | None:
    if cell.options.rerun:
        return None
    found = record.reusable(cell.options.runs_dir, cell.plan.fingerprint, provenance.code_version())
    return found if found and _whole(cell, found) else None


def _whole(cell: Cell, found: dict[str, Any]) -> bool:
    """Whether the files that the record names are still there."""
    folder = record.path(cell.options.runs_dir, cell.plan.fingerprint).parent
    names = [found["adapter"]["path"] if found["adapter"] else None, found["predictions"]]
    return all((folder / name).exists() for name in names if name)


Begin = Callable[[Sequence[Cell], Path], "Iterator[tuple[Cell, JobReturn]]"]


def work(cells: Sequence[Cell], begin: Begin) -> "list[JobReturn]":
    """Run each unique plan of the grid once, then show every cell; one Hydra result per cell.

    Args:
        begin: runs cells, keeping its notes in the folder; yields Hydra's result of each as it ends, a
            failure included.

    Raises:
        HarnessError: some cell cannot work; nothing has run then.
        RunFault: some run failed; all others have run, and the table has shown which.
    """
    from hydra.core.utils import JobReturn, JobStatus

    check_stage(cells)
    if cells[0].options.stage is Stage.plan:
        show_plan(cells)
        return [JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED) for cell in cells]
    folder = keep(cells)
    results, earlier = attempt(cells, begin, folder)
    conclude(cells, results, earlier, folder)
    return [results[cell.plan.fingerprint] for cell in cells]


def attempt(cells: Sequence[Cell], begin: Begin, folder: Path) -> "tuple[dict[str, JobReturn], frozenset[str]]":
    """Hydra's result of each unique plan, and the fingerprints of those that were finished earlier.

    Raises:
        ModelFault: some plan does not fit its model; nothing has run then.
    """
    from hydra.core.utils import JobReturn, JobStatus

    plans = unique(cells)
    found = {cell.plan.fingerprint: reusable(cell) for cell in plans}
    todo = [cell for cell in plans if found[cell.plan.fingerprint] is None]
    log.info(
        "%d cells, %d runs, %d of them finished earlier; records in %s",
        *(len(cells), len(plans), len(plans) - len(todo), _shown(cells[0].options.runs_dir)),
    )
    check_rows(todo)
    check_models(todo)
    results: dict[str, JobReturn] = {}
    for cell in plans:
        if (kept := found[cell.plan.fingerprint]) is not None:
            log.info("%s: finished %s; rerun=true does it again", cell.plan.fingerprint, kept["finished"])
            done = JobReturn(overrides=cell.overrides, status=JobStatus.COMPLETED, _return_value=kept)
            results[cell.plan.fingerprint] = done
    earlier = frozenset(results)
    for cell, result in begin(todo, folder) if todo else ():
        results[cell.plan.fingerprint] = result
        if result.status is JobStatus.FAILED:
            log.error("%s failed: %s", cell.name, result._return_value)
    return results, earlier


def conclude(cells: Sequence[Cell], results: "Mapping[str, JobReturn]", earlier: frozenset[str], folder: Path) -> None:
    """Show every cell.

    Raises:
        RunFault: some run failed.
    """
    from hydra.core.utils import JobStatus

    whole = finish(cells, earlier, folder)
    failed = sum(result.status is JobStatus.FAILED for result in results.values())
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


def run_cell(cell: Cell, run: Run) -> dict[str, Any]:
    """The record of one cell: made now, or the finished one used again."""
    found = reusable(cell)
    if found:
        log.info("%s: finished %s; rerun=true does it again", cell.plan.fingerprint, found["finished"])
        return found
    return run(cell.plan, cell.options, cell.name)


def run_single(cell: Cell, run: Run) -> dict[str, Any]:
    """One run on its own, with its table."""
    done = reusable(cell) is not None
    if not done:
        check_rows([cell])
        check_models([cell])
    reused = frozenset({cell.plan.fingerprint} if done else ())
    kept = run_cell(cell, run)
    finish([cell], reused, None)
    return kept


def finish(cells: Sequence[Cell], reused: frozenset[str], folder: Path | None) -> bool:
    """Print the table of the cells, write it into ``folder``; whether every cell has a finished record.

    Args:
        reused: fingerprints whose records are of an earlier command.
    """
    return parallel.agreed(lambda: _finish(cells, reused, folder))


def _finish(cells: Sequence[Cell], reused: frozenset[str], folder: Path | None) -> bool:
    found = {cell.plan.fingerprint: record.read(cell.options.runs_dir, cell.plan.fingerprint) for cell in cells}
    records = {fingerprint: kept for fingerprint, kept in found.items() if kept is not None}
    common = report.shared_overrides([cell.overrides for cell in cells])
    shown = [
        report.Cell(
            overrides=cell.name,
            fingerprint=cell.plan.fingerprint,
            method=cell.plan.method,
            setting=report.setting_of(cell.name, cell.plan.method, common),
            reused=cell.plan.fingerprint in reused,
        )
        for cell in cells
    ]
    table = report.table(shown, records)
    report.to_console(table)
    if folder is not None:
        report.write_all(folder, table)
        log.info("%s; the table as CSV and Markdown: %s", report.outcome(table), _shown(folder))
    return all(f in records and records[f]["status"] == "finished" for f in found)


def show_all(runs_dir: Path) -> None:
    """Tabulate every record below ``runs_dir``, with the same as CSV and Markdown beside them.

    Raises:
        ConfigFault: there is none.
    """
    records = record.all_records(runs_dir)
    if not records:
        raise ConfigFault(f"runs_dir={runs_dir} holds no record; run something first, or set runs_dir")
    table = report.table(report.cells_of(records), {kept["fingerprint"]: kept for kept in records})
    report.to_console(table)
    report.write_all(runs_dir, table)
    log.info("%s; the table as CSV and Markdown: %s", report.outcome(table), _shown(runs_dir))


def keep(cells: Sequence[Cell]) -> Path:
    """Write the list of cells and their plans' fingerprints; returns the sweep's folder."""
    runs_dir = cells[0].options.runs_dir
    grid = [{"overrides": list(cell.overrides), "fingerprint": cell.plan.fingerprint} for cell in cells]
    folder = runs_dir / "sweeps" / digest(grid)
    content = {"name": cells[0].options.sweep_name, "cells": grid}
    record.atomic_write_text(folder / "sweep.json", json.dumps(content, ensure_ascii=False, indent=1))
    return folder


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
    faults = []
    for cell in plans:
        try:
            counts = estimate.count_plan(cell.plan)
        except HarnessError as error:
            faults.append(f"{error} [in {cell.name}]")
            continue
        sharing = [other.name for other in cells if other.plan.fingerprint == cell.plan.fingerprint]
        table.add_row(
            cell.plan.fingerprint,
            escape("\n".join(sharing)),
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
