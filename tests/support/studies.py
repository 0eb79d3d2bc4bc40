"""Studies with real plans and records, and without training."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.errors import Paused, RunFault
from harness.plan.read import read_config
from harness.record.run_record import Training
from harness.sweep import dispatch
from harness.sweep.cells import Cell
from harness.sweep.journal import ended_trials, load_study
from harness.sweep.outcome import Outcome, Status
from harness.sweep.search_space import StudySettings
from harness.sweep.study import Session, open_session
from harness.sweep.worklist import Dispatch
from tests.support.configs import overridden
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record

SETTINGS: dict[str, Any] = {
    "objective": "validation_loss", "direction": None, "n_trials": 4, "parallel": 2, "sampler": "tpe", "seed": 0,
}  # fmt: skip


def settings(**changes: Any) -> StudySettings:
    """The settings of a study, with changes."""
    return StudySettings(**{**SETTINGS, **changes})


def parsed(*overrides: str) -> list[Any]:
    """The overrides as Hydra reads them."""
    return OverridesParser.create().parse_overrides(list(overrides))


read = cache(lambda *overrides: read_config(overridden(*overrides)))


class StudyCommand:
    """Makes studies; in place of training, the loss is the distance of ``lora.r`` from 20.

    Attributes:
        ran: ``lora.r`` of each run, in order.
        failing: values of ``lora.r`` whose runs fail.
        stop_after: so many runs, the command is stopped as by Ctrl-C.
        options: overrides of the shared configuration.
    """

    def __init__(self, runs_dir: Path, model: Path) -> None:
        self.runs_dir, self.model = runs_dir, model
        self.ran: list[int] = []
        self.failing: set[int] = set()
        self.stop_after = 1000
        self.options: tuple[str, ...] = ()

    def prepare(self, jobs: Sequence[Sequence[str]], first: int) -> tuple[list[Cell], Dispatch]:
        cells = []
        for overrides in jobs:
            plan, options = read(*overrides, *self.options, f"model.path={self.model}", f"runs_dir={self.runs_dir}")
            cells.append(Cell(tuple(overrides), plan, options))
        return cells, partial(dispatch.run_here, self.run_cell)

    def run_cell(self, cell: Cell) -> Outcome:
        r = cell.plan.settings["r"]
        if len(self.ran) >= self.stop_after:
            raise KeyboardInterrupt
        self.ran.append(r)
        if r in self.failing:
            fail(self.runs_dir, started(cell), RunFault("no"))
            return Outcome(cell.plan.fingerprint, Status.failed, "no")
        evaluations = cell.options.pause_after or cell.plan.trainer.evaluations
        points = [{"step": number + 1, "loss": abs(20.0 - r)} for number in range(evaluations)]
        training = Training(validation=points, best_step=None)
        if cell.options.pause_after is not None:
            record = started(cell)
            record.training = training
            fail(self.runs_dir, record, Paused("paused"))
            return Outcome(cell.plan.fingerprint, Status.paused, "paused")
        return Outcome(cell.plan.fingerprint, Status.finished, record=finish_record(cell, training=training))

    def study(self, *overrides: str, **changes: Any) -> Session:
        composed = overridden(f"runs_dir={self.runs_dir}", *self.options)
        chosen = settings(**{"sampler": "random", **changes})
        return open_session(chosen, parsed(*(overrides or ("lora.r=interval(1,64)",))), self.prepare, composed)


def trials_of(session: Session) -> list[tuple[str, dict[str, Any]]]:
    """State and parameters of the trials that have ended."""
    study = load_study(session.folder, session.settings.towards)
    return [(trial.state.name, trial.params) for trial in ended_trials(study)]
