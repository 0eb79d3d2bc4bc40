"""stage=plan: the grid with its trainable parameters, and what it costs on a device, without training."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import HarnessError, raise_together
from harness.estimate.duration import in_words
from harness.runtime.terminal import counted, printable
from harness.sweep.cells import Cell, effective_overrides
from harness.sweep.grid import unique_plans
from harness.sweep.reuse import other_code, reusable

if TYPE_CHECKING:
    from rich.console import Console

    from harness.estimate.plan_counter import PlanCounter
    from harness.estimate.planning import Cost


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
    if cells[0].options.plan.device is not None:
        _show_costs(plans, console)
    if cells[0].options.plan.capacity:
        _show_capacity(plans, counter, console)


def _show_costs(plans: Sequence[Cell], console: "Console") -> None:
    """Memory by part, operations, time, and what fits; a plan that cannot be followed is named with the reason."""
    from harness.estimate.planning import Cost, Planner
    from harness.report.plain_table import plain_table

    planner = Planner(plans[0].options)
    costs: dict[str, Cost] = {}
    faults: dict[str, str] = {}
    for cell in plans:
        try:
            costs[cell.plan.fingerprint] = planner.cost(cell.plan)
        except HarnessError as error:
            faults[cell.plan.fingerprint] = str(error)
    device = planner.device(plans[0].plan)
    dtype = planner.dtype(plans[0].plan)
    console.print()
    memory = plain_table(f"memory of a pass on {device.name}, MiB, {dtype}, at the longest rows")
    columns = (
        "run",
        "weights",
        "adapter",
        "gradients",
        "optimizer",
        "activations",
        "(other)",
        "logits",
        "cache",
        "peak",
    )
    for number, column in enumerate((*columns, "fits", "largest batch", "DDP", "FSDP")):
        memory.add_column(column, justify="right" if number else "left", no_wrap=True)
    for name, cost in costs.items():
        parts = cost.memory
        other = cost.checkpointed.activations
        sizes = (parts.weights, parts.adapter, parts.gradients, parts.optimizer, parts.activations, other, parts.logits)
        memory.add_row(
            *(name, *(_mib(size) for size in (*sizes, parts.cache, parts.peak)), "yes" if cost.fits else "no"),
            *(str(cost.micro_batch), _devices(cost.ddp), _devices(cost.fsdp)),
        )
    console.print(memory)
    expected = f"{device.flops_per_s(dtype) / 1e12:.3g} TFLOP/s expected of {device.count} of it"
    work = plain_table(f"work and time on {device.name}, {expected}")
    for number, column in enumerate(("run", "FLOPs trained", "FLOPs scored", "time", "adapter MiB")):
        work.add_column(column, justify="right" if number else "left", no_wrap=True)
    for name, cost in costs.items():
        stored = "-" if cost.adapter_bytes is None else f"{cost.adapter_bytes / 2**20:,.2f}"
        work.add_row(name, _flops(cost.train_flops), _flops(cost.score_flops), _time(cost.seconds), stored)
    console.print(work)
    _show_total(list(costs.values()), len(plans), console)
    console.print(
        "(other): activations with the other value of trainer.gradient_checkpointing. Gradients appear while "
        "activations are freed, so the peak can be below the sum. Peaks are lower limits: docs/planning.md says by how "
        "much processes on a CPU were above them."
    )
    for note in planner.notes:
        console.print(f"note: {note}", markup=False)
    for name, reason in faults.items():
        console.print(f"{name}: costs unknown: {reason}", markup=False)


def _show_total(costs: "Sequence[Cost]", runs: int, console: "Console") -> None:
    known = [cost for cost in costs if cost.seconds is not None]
    flops = sum((cost.train_flops or 0.0) + (cost.score_flops or 0.0) for cost in known)
    seconds = sum(cost.seconds or 0.0 for cost in known)
    stored = sum(cost.adapter_bytes or 0 for cost in costs)
    left = f"; {runs - len(known)} of {counted(runs, 'run')} not counted" if len(known) < runs else ""
    console.print(
        f"total: {_flops(flops)} FLOPs, {_time(seconds)} one after another, {_mib(stored)} MiB of adapters, "
        f"{sum(cost.fits for cost in costs)} of {counted(runs, 'run')} fit{left}",
        markup=False,
    )


def _show_capacity(plans: Sequence[Cell], counter: "PlanCounter", console: "Console") -> None:
    """Bits of the training rows against bits of the adapters; each base reads each data set once."""
    from harness.estimate import capacity
    from harness.models.base import load_base
    from harness.plan.spec import digest
    from harness.report.plain_table import plain_table

    often = f"{capacity.bits_per_number(capacity.OFTEN):g} bits a trained number of what it sees often"
    table = plain_table(f"capacity: {often}")
    columns = ("run", "bits of rows", "a token", "of adapter", "share", "rank", "passes", "then")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    demands: dict[str, capacity.Demand] = {}
    bases = {}
    for cell in plans:
        plan = cell.plan
        key = digest([plan.base_key, plan.as_dict()["data"], dict(plan.inputs)])
        if plan.base_key not in bases:
            bases = {plan.base_key: load_base(plan.model)}  # one at a time
        if key not in demands:
            demands[key] = capacity.demand_of(plan, bases[plan.base_key])
        room = capacity.room_of(plan, demands[key], counter)
        table.add_row(
            *(plan.fingerprint, f"{room.demand.bits:,.0f}", f"{room.demand.per_token:.2f}", f"{room.bits:,.0f}"),
            *(f"{room.share:.2f}", _rank(room.rank), f"{room.passes:.3g}", _rank(room.rank_at_passes)),
        )
    console.print()
    console.print(table)
    console.print(
        "rank: below it, size binds the method, even if rows repeat what they teach; then: the same if they repeat "
        "nothing, so that each is seen once a pass (docs/planning.md)."
    )


def _rank(rank: int | None) -> str:
    return "-" if rank is None else f"{rank}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}" if size >= 10 * 2**20 else f"{size / 2**20:,.2f}"


def _flops(number: float | None) -> str:
    return "-" if number is None else f"{number:.2e}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else in_words(seconds)


def _devices(number: int | None) -> str:
    return "-" if number is None else str(number)


def _finished_earlier(cell: Cell) -> str:
    record = reusable(cell)
    if record is None:
        return "no"
    return "yes, by other code" if other_code(record) else "yes"
