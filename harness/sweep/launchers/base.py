"""Where the runs of a sweep are worked off besides this process: processes here (joblib), a cluster (ray).

An engine gets jobs and yields their outcomes as they end; ``slurm`` is one more, in a module of its own. A
worker that is killed costs its own run and no other: each worker is a slot of its own, started anew.
"""

import logging
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ConfigFault, raise_together
from harness.runtime import signals
from harness.runtime.distributed import processes
from harness.sweep.launchers.worker import DIED, Job, Outcome

log = logging.getLogger(__name__)


class Launcher(ABC):
    """Works off jobs somewhere; settings are those of ``conf/hydra/launcher/<name>.yaml``."""

    outlives: ClassVar[bool] = False  # whether its runs go on when the command is stopped

    @abstractmethod
    def check(self) -> None:
        """Look at the settings, before anything is composed.

        Raises:
            ConfigFault: one makes no sense, or the engine's package is not installed.
        """

    @abstractmethod
    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        """One outcome for each job, as they end. A job's failure, or its worker's death, is an outcome.

        Args:
            folder: of the sweep, for logs; every worker must see it under this name.

        Raises:
            ConfigFault: no machine can take such a job.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers, which are kept from one ``run`` to the next."""


class Worker(ABC):
    """One worker process, kept for several jobs."""

    model = ""  # of its last job, which it still holds

    @abstractmethod
    def submit(self, job: Job) -> "Future[Outcome]":
        """Start the job; the future raises where the process dies."""

    @abstractmethod
    def restart(self) -> None:
        """Replace a dead process."""

    def ask_to_stop(self) -> None:  # noqa: B027 (most slots cannot be asked)
        """Let the process write a checkpoint and end its run; its future then has a result."""

    @abstractmethod
    def close(self, busy: bool = False) -> None:
        """End the process; where it is busy, in the middle of what it does."""


def outcomes_of(slots: Sequence[Worker], jobs: Sequence[Job], grace_s: float) -> Iterator[Outcome]:
    """Outcomes of the jobs, each slot busy with one at a time; stopped, it gives them ``grace_s`` and ends them."""
    todo, running = list(jobs), dict[Future[Outcome], tuple[Worker, Job]]()
    try:
        while todo or running:
            busy = [slot for slot, _ in running.values()]
            for slot in [each for each in slots if each not in busy][: len(todo)]:
                job = _next(slot, slots, todo)
                todo.remove(job)
                running[_submitted(slot, job)] = slot, job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, job = running.pop(future)
                yield _outcome(future, slot, job)
    except BaseException:
        if running and signals.requested() != signal.SIGINT:  # that one the terminal has sent to all
            for slot, _ in running.values():
                slot.ask_to_stop()
        cut = wait(running, timeout=grace_s).not_done
        for slot in [running[future][0] for future in cut]:
            slot.close(busy=True)
        raise


def _next(slot: Worker, slots: Sequence[Worker], todo: Sequence[Job]) -> Job:
    """A job on the model that the slot holds, else on one that no other holds, else the next one."""
    held = {other.model for other in slots}
    same = (job for job in todo if job.model == slot.model)
    return next(same, None) or next((job for job in todo if job.model not in held), todo[0])


def _submitted(slot: Worker, job: Job) -> "Future[Outcome]":
    slot.model = job.model
    try:
        return slot.submit(job)
    except Exception:  # it died while idle
        slot.restart()
        return slot.submit(job)


def _outcome(future: "Future[Outcome]", slot: Worker, job: Job) -> Outcome:
    try:
        return future.result()
    except Exception as error:
        slot.restart()
        slot.model = ""
        return Outcome(job.fingerprint, DIED, why_it_died(error), 0.0)


def why_it_died(error: BaseException) -> str:
    """Why a worker gave no answer, in a line."""
    text = " ".join(str(error).split())
    _, found, codes = text.partition("exit codes of the workers are ")
    detail = codes.partition("}")[0].lstrip("{") if found else f"{type(error).__name__}: {text[:300]}"
    return f"its process died ({detail}): killed, or out of memory"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_settings(name: str, package: str, values: Mapping[str, Any], **lowest: float) -> None:
    """Refuse settings that are no number, or below the lowest that makes sense; null passes.

    Raises:
        ConfigFault: lists all of them, or says that the package is not installed.
    """
    faults = [] if find_spec(package) else [f"hydra/launcher={name} needs {package}: pip install {package}"]
    for key, low in lowest.items():
        value = values[key]
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= low):
            continue
        faults.append(f"hydra.launcher.engine.{key}={value}: give a number, {low:g} or more, or null")
    raise_together(faults)


def refuse_under_torchrun(name: str) -> None:
    """Raise ConfigFault: launchers and sweepers that start processes of their own, under torchrun."""
    if processes() > 1:
        raise ConfigFault(
            f"{name} starts processes of its own, and WORLD_SIZE={processes()}: torchrun has started this one; "
            "use hydra/launcher=basic and hydra/sweeper=basic there"
        )
