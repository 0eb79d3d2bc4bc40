"""The course of one command through its plans: what runs, what other processes do, when to stop, how long still."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HeldByAnotherProcess
from harness.estimate import duration
from harness.record import provenance, store
from harness.sweep.cells import Cell, answered_by_another, describe_result, failure_of, wait_for

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

log = logging.getLogger(__name__)


# Runs cells, keeping its notes in the folder; yields Hydra's result of each as it ends, a failure included.
Begin = Callable[[Sequence[Cell], Path, "Worklist"], "Iterator[tuple[Cell, JobReturn]]"]


class Worklist:
    """How far a command has come; for a study, through all of its batches.

    Attributes:
        answers: by fingerprint, who else made the result, in words.
        idle: fingerprints that were not come to, because too many runs had failed.
    """

    def __init__(self, runs_dir: Path, most_failures: int | None) -> None:
        self.answers: dict[str, str] = {}
        self.idle: set[str] = set()
        self.total = self.ended = self.failed = 0
        self.most_failures = most_failures
        self._runs_dir = runs_dir

    @cached_property
    def _forecast(self) -> duration.Forecast:
        """Made when first asked: a sweep with nothing to run need not read every record."""
        records = store.all_records(self._runs_dir, curves=False)
        return duration.Forecast(records, str(provenance.owner()["host"]))

    @property
    def over(self) -> bool:
        """Whether no further run may start, because too many have failed."""
        return self.most_failures is not None and self.failed > self.most_failures

    def expect(self, todo: Sequence[Cell]) -> str:
        """Take these on; how long they may take, in words."""
        self.total += len(todo)
        return self.still(todo)

    def still(self, todo: Sequence[Cell]) -> str:
        """``about 12 min``, or ``time unknown``; the cost of starting the first run included."""
        if not todo:
            return "nothing"
        seconds, unknown = self._forecast.seconds([cell.plan for cell in todo])
        if unknown == len(todo):
            return "time unknown: no like run is on record"
        return f"about {duration.in_words(seconds)}" + (f" and {unknown} runs of unknown length" if unknown else "")

    def follow(self, todo: Sequence[Cell], begin: Begin, folder: Path) -> "Iterator[tuple[Cell, JobReturn]]":
        """Results as they come. Plans that other processes work on are left for later, then waited for.

        Ends early where ``over``; runs that are under way then come to their end first.
        """
        left, waiting = list(todo), list[Cell]()
        while left and not self.over:
            asked = []
            for cell in left:
                result = self.looked_up(cell)
                if result is None:
                    asked.append(cell)
                    continue
                self._note(result)
                yield cell, result
            for cell, result in begin(asked, folder, self) if asked and not self.over else ():
                if isinstance(result._return_value, HeldByAnotherProcess):
                    log.info("%s: %s; left for later", cell.name, result._return_value)
                    waiting.append(cell)
                    continue
                self._note(result)
                yield cell, result
            left = wait_for(waiting) if waiting and not self.over else []
            waiting = [cell for cell in waiting if cell not in left]

    def looked_up(self, cell: Cell) -> "JobReturn | None":
        """Hydra's result where another process has answered for the plan since this command began."""
        from hydra.core.utils import JobReturn, JobStatus

        found = answered_by_another(cell)
        if found is None:
            return None
        self.answers[cell.plan.fingerprint] = describe_result(found)
        log.info("%s: %s: %s", cell.plan.fingerprint, describe_result(found), cell.name)
        failed = found["status"] == "failed"
        result = JobReturn(overrides=cell.overrides, status=JobStatus.FAILED if failed else JobStatus.COMPLETED)
        result.return_value = failure_of(found) if failed else found
        return result

    def _note(self, result: "JobReturn") -> None:
        from hydra.core.utils import JobStatus

        self.ended += 1
        if result.status is JobStatus.FAILED:
            self.failed += 1
            if self.over and self.failed == (self.most_failures or 0) + 1:
                log.error("more runs failed than sweep.max_failures=%s: no further run starts", self.most_failures)
        else:
            kept: Any = result._return_value
            if isinstance(kept, dict):
                self._forecast.learn(kept)
