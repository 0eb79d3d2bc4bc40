"""stage=plan: the grid with its trainable parameters, without training."""

import sys
from collections import defaultdict
from collections.abc import Sequence

from harness.errors import HarnessError, raise_together
from harness.runtime.terminal import counted, printable
from harness.sweep.cells import Cell, effective_overrides
from harness.sweep.grid import unique_plans
from harness.sweep.reuse import other_code, reusable


def show_plan(cells: Sequence[Cell]) -> None:
    """Print the grid with its trainable parameters, counted on the meta device.

    Raises:
        ModelFault: a method does not fit its model; all of them are listed.
    """
    from rich.console import Console
    from rich.markup import escape

    from harness.estimate.plan_counter import PlanCounter
    from harness.report.cells import shared_overrides
    from harness.report.plain_table import plain_table

    plans = unique_plans(cells)
    table = plain_table(f"{counted(len(cells), 'cell')}, {counted(len(plans), 'run')}")
    for column in ("run", "cells", "trainable", "share", "total", "finished earlier"):
        left = column in ("run", "cells")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "cells", overflow="fold")
    counter = PlanCounter()
    sharing, faults = defaultdict[str, list[str]](list), []
    # A scale sets much that all cells share.
    common = shared_overrides([cell.overrides for cell in cells]) if cells[0].options.scale else frozenset[str]()
    for cell in cells:
        words = [word for word in effective_overrides(cell.overrides) if word not in common]
        sharing[cell.plan.fingerprint].append(" ".join(words) or cell.plan.method)
    for cell in plans:
        try:
            counts = counter.count(cell.plan)
        except HarnessError as error:
            faults.append(f"{error} [in {cell.name}]")
            continue
        table.add_row(
            cell.plan.fingerprint,
            escape("\n".join(printable(name, one_line=True) for name in sharing[cell.plan.fingerprint])),
            f"{counts.trainable:,}",
            f"{counts.share:.3%}",
            f"{counts.total:,}",
            _finished_earlier(cell),
        )
    raise_together(faults)
    console = Console(file=sys.stdout)
    console.print(table)
    if common:
        console.print(f"all cells: {escape(' '.join(each for each in cells[0].overrides if each in common))}")


def _finished_earlier(cell: Cell) -> str:
    record = reusable(cell)
    if record is None:
        return "no"
    return "yes, by other code" if other_code(record) else "yes"
