"""One command's progress through its plans: what is left, what other processes do, when to stop, how long it takes."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from harness.estimate import duration
from harness.plan.spec import Options
from harness.record import provenance, store
from harness.report.cells import setting_of, shared_overrides, split_overrides
from harness.runtime import signals
from harness.sweep.cells import Cell
from harness.sweep.claim import wait_for
from harness.sweep.outcome import Outcome, Status
from harness.sweep.reuse import describe_result, failure_of, made_by_another

log = logging.getLogger(__name__)

# Runs cells and yields the outcome of each as it ends; keeps its files in the folder.
Dispatch = Callable[[Sequence[Cell], Path, "Worklist"], Iterator[Outcome]]


class Worklist:
    """A command's progress through its plans; for a study, through all of its batches.

    Attributes:
        made_by: by fingerprint, which other process made the result during this command, in words.
        not_started: fingerprints of plans that were not started because too many runs had failed.
    """

    def __init__(self, runs_dir: Path, max_failures: int | None, max_hours: float | None = None) -> None:
        self.made_by: dict[str, str] = {}
        self.not_started: set[str] = set()
        self.total = self.ended = self.failed = 0
        self.max_failures = max_failures
        self.max_hours = max_hours
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self.at_most = False  # whether runs may end early, so that durations are upper bounds
        self._round = ""
        self._shared: frozenset[str] = frozenset()
        self._runs_dir = runs_dir

    @classmethod
    def of(cls, options: Options) -> "Worklist":
        """The worklist of a command with these options, whose time begins now."""
        return cls(options.runs_dir, options.max_failures, options.max_hours)

    @cached_property
    def _forecast(self) -> duration.Forecast:
        """Made at first use: a sweep with nothing to run need not read every record."""
        records = store.all_records(self._runs_dir, curves=False)
        return duration.Forecast(records, str(provenance.owner()["host"]))

    @property
    def over(self) -> bool:
        """Whether no further run may start."""
        return self.failed_too_often or self.out_of_time

    @property
    def failed_too_often(self) -> bool:
        """Whether more runs have failed than ``sweep.max_failures``."""
        return self.max_failures is not None and self.failed > self.max_failures

    @property
    def out_of_time(self) -> bool:
        """Whether the command has had its ``sweep.max_hours``."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @contextmanager
    def within_time(self) -> Iterator[None]:
        """Stop what runs inside once ``sweep.max_hours`` are over, as a signal would: with a checkpoint."""
        if self._deadline is None:
            yield
            return
        try:
            with signals.time_limit(self._deadline - time.monotonic()):
                yield
        except signals.TimeIsUp:
            log.warning("sweep.max_hours=%g reached: no further run starts", self.max_hours)

    def name_by(self, cells: Sequence[Cell]) -> None:
        """Leave out of labels what all of these cells share."""
        self._shared = shared_overrides([cell.name for cell in cells])

    def label(self, cell: Cell) -> str:
        """``lora r=8``: what tells the cell from the others of its sweep."""
        words = split_overrides(setting_of(cell.name, cell.plan.method, self._shared))
        own = [word for word in words if not word.startswith("(") and word != cell.plan.method]
        return " ".join([cell.plan.method, *own])

    @property
    def place(self) -> str:
        """``3/8``: which run comes next, of how many; with rounds, ``rung 1: 3/8``."""
        return self.place_beside(0)

    def place_beside(self, running: int) -> str:
        """The ``place`` of a run that starts while so many others are under way."""
        return f"{self._round}{self.ended + running + 1}/{self.total}"

    def begin_round(self, name: str, runs: int) -> None:
        """Count from 1 again: so many runs follow, up to a rung or to their end."""
        self._round, self.total, self.ended = name, runs, 0

    def add(self, cells: Sequence[Cell]) -> str:
        """Add these cells; returns how long they may take, in words."""
        self.total += len(cells)
        return self.time_for(cells)

    def time_for(self, cells: Sequence[Cell]) -> str:
        """``about 12 min``, or ``time unknown``; includes the cost of starting the first run."""
        if not cells:
            return "nothing"
        seconds, unknown = self._forecast.seconds([cell.plan for cell in cells])
        if unknown == len(cells):
            return "time unknown: no comparable finished run"
        about = "at most" if self.at_most else "about"
        return f"{about} {duration.in_words(seconds)}" + (f" and {unknown} runs of unknown length" if unknown else "")

    def follow(self, cells: Sequence[Cell], dispatch: Dispatch, folder: Path) -> Iterator[Outcome]:
        """Outcomes as they come. Plans that other processes are running are postponed, then waited for.

        Ends early when ``over``; runs that have started then finish first.
        """
        left, held = list(cells), list[Cell]()
        while left and not self.over:
            to_run = []
            for cell in left:
                outcome = self.outcome_of_another(cell)
                if outcome is None:
                    to_run.append(cell)
                    continue
                self._count(outcome)
                yield outcome
            by_fingerprint = {cell.plan.fingerprint: cell for cell in to_run}
            for outcome in dispatch(to_run, folder, self) if to_run and not self.over else ():
                if outcome.status is Status.held:
                    cell = by_fingerprint[outcome.fingerprint]
                    log.info("%s: %s; postponed", self.label(cell), outcome.message)
                    held.append(cell)
                    continue
                self._count(outcome)
                yield outcome
            left = wait_for(held) if held and not self.over else []
            held = [cell for cell in held if cell not in left]

    def outcome_of_another(self, cell: Cell) -> Outcome | None:
        """The outcome, if another process has finished the plan or failed at it since this command began."""
        record = made_by_another(cell)
        if record is None:
            return None
        by_whom = describe_result(record)
        self.made_by[cell.plan.fingerprint] = by_whom
        log.info("%s (%s): %s", self.label(cell), cell.plan.fingerprint, by_whom)
        if record["status"] == "failed":
            return Outcome(cell.plan.fingerprint, Status.failed, str(failure_of(record)), made_by=by_whom)
        return Outcome(cell.plan.fingerprint, Status.finished, made_by=by_whom, record=record)

    def _count(self, outcome: Outcome) -> None:
        self.ended += 1
        if outcome.failed:
            self.failed += 1
            if self.failed_too_often and self.failed == (self.max_failures or 0) + 1:
                log.error("more runs failed than sweep.max_failures=%s: no further run starts", self.max_failures)
        elif outcome.record is not None:
            self._forecast.learn(outcome.record)
