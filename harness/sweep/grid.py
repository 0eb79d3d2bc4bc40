"""The cells of a grid, checked as a whole before any of them runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import ConfigFault, DataFault, HarnessError, ModelFault, raise_together
from harness.plan.read import read_config
from harness.plan.spec import digest, plain
from harness.sweep.cells import Cell
from harness.sweep.sizes import Sizes

if TYPE_CHECKING:
    from omegaconf import DictConfig


def grid_cells(
    grid: "Iterable[tuple[Sequence[str], Callable[[], DictConfig]]]", name: str, here: bool = True
) -> list[Cell]:
    """The cells of a whole grid, each checked; the faults of all cells are raised together, each listed once.

    Args:
        grid: the overrides of each cell, and a function that composes its configuration.
        name: of the sweep, unless the configuration names it.
        here: the cells are run on this machine.

    Raises:
        ConfigFault: some cell cannot work; nothing has run.
    """
    cells, faults, sizes = [], dict[str, str](), Sizes()
    for overrides, compose in grid:
        try:
            plan, options = read_config(compose(), here, sizes.of(overrides))
        except HarnessError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, " ".join(overrides))
            continue
        cells.append(Cell(tuple(overrides), plan, replace(options, sweep_name=options.sweep_name or name)))
    raise_together([f"{line} [in {where}]" if where else line for line, where in faults.items()])
    for cell in cells:
        if cell.options.stage.value not in ("run", "plan"):
            raise ConfigFault(f"stage={cell.options.stage.value} does not take a sweep; leave out -m")
    return cells


def unique_plans(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each plan, grouped by base model, otherwise in grid order."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.plan.fingerprint, cell)
    models = {fingerprint: digest(plain(cell.plan.model)) for fingerprint, cell in first.items()}
    order = {model: i for i, model in enumerate(dict.fromkeys(models.values()))}
    return sorted(first.values(), key=lambda cell: order[models[cell.plan.fingerprint]])


def check_data(cells: Sequence[Cell]) -> None:
    """Read every data set of these cells once, so that bad rows are found before a model is loaded.

    Raises:
        DataFault: lists the faults of every data set.
    """
    from harness.data import dataset

    faults: dict[str, list[str]] = {}
    for cell in cells:
        key = digest([cell.plan.as_dict()["data"], dict(cell.plan.inputs)])
        if key in faults:
            continue
        try:
            dataset.read_splits(cell.plan.data)
            faults[key] = []
        except DataFault as error:
            faults[key] = [str(error)]
    raise_together([fault for of_one in faults.values() for fault in of_one], DataFault)


def check_models(cells: Sequence[Cell]) -> None:
    """Attach every method to the skeleton of its model, so that a misfit is found before anything trains.

    Raises:
        ModelFault: lists every misfit.
    """
    if not cells:
        return  # a sweep that only reuses records answers at once: no torch
    from harness.estimate.plan_counter import PlanCounter

    counter, faults = PlanCounter(), []
    for cell in cells:
        try:
            counter.count(cell.plan)
        except HarnessError as error:
            faults.append(f"{error} [in {cell.name}]")
    raise_together(faults, ModelFault)
