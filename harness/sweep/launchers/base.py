"""Launchers run a sweep's jobs on workers: other processes on this machine, or other machines.

A launcher gets jobs and yields their outcomes as they end. A worker that is killed costs its own run and no other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ConfigFault, raise_together
from harness.runtime import threads
from harness.runtime.distributed import processes
from harness.sweep.launchers.worker import WorkerJob
from harness.sweep.outcome import Outcome, Status

POLL_S = 1.0  # between two looks at the jobs: on Windows, Ctrl-C does not end a wait
GRACE_S = 60.0  # for workers to write a checkpoint and a record that says "interrupted"


class Launcher(ABC):
    """Runs jobs on workers; its settings are those of ``conf/hydra/launcher/<name>.yaml``."""

    outlives: ClassVar[bool] = False  # whether its runs continue when the command is stopped
    elsewhere: ClassVar[bool] = False  # whether its workers may be on other machines, with other devices

    @abstractmethod
    def check(self) -> None:
        """Check the settings, before anything is composed.

        Raises:
            ConfigFault: a setting makes no sense, or the package that the launcher needs is not installed.
        """

    @abstractmethod
    def run(self, jobs: Sequence[WorkerJob], folder: Path) -> Iterator[Outcome]:
        """One outcome per job, as they end. A job's failure, or its worker's death, is an outcome.

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

    model = ""  # of its last job; the worker still holds it

    @abstractmethod
    def submit(self, job: WorkerJob) -> "Future[Outcome]":
        """Start the job; the future raises if the process dies."""

    @abstractmethod
    def restart(self) -> None:
        """Replace a dead process."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Let the process write a checkpoint and end its run; its future then has a result. Twice is as once."""

    @abstractmethod
    def close(self, busy: bool = False) -> None:
        """End the process; if ``busy``, in the middle of its job."""


def run_jobs(workers: Sequence[Worker], jobs: Sequence[WorkerJob], grace_s: float) -> Iterator[Outcome]:
    """Outcomes of the jobs; each worker runs one at a time.

    When the command is stopped, workers get ``grace_s`` seconds to stop by themselves; then they are ended.
    """
    todo, running = list(jobs), dict[Future[Outcome], tuple[Worker, WorkerJob]]()
    try:
        while todo or running:
            busy = [worker for worker, _ in running.values()]
            for worker in [each for each in workers if each not in busy][: len(todo)]:
                job = _next_job(worker, workers, todo)
                todo.remove(job)
                running[_submit(worker, job)] = worker, job
            for future in wait(running, POLL_S, FIRST_COMPLETED).done:
                worker, job = running.pop(future)
                yield _outcome(future, worker, job)
    except BaseException:
        # In any case: whoever stopped this process (a supervisor, timeout, an IDE) may have told nobody else.
        for worker, _ in running.values():
            worker.ask_to_stop()
        try:
            wait(running, timeout=grace_s)
        finally:  # a second signal does not wait
            for future, (worker, _) in running.items():
                if not future.done():
                    worker.close(busy=True)
        raise


def _next_job(worker: Worker, workers: Sequence[Worker], todo: Sequence[WorkerJob]) -> WorkerJob:
    """A job on the model that the worker holds, else on one that no other worker holds, else the next one."""
    held = {other.model for other in workers}
    same = (job for job in todo if job.model == worker.model)
    return next(same, None) or next((job for job in todo if job.model not in held), todo[0])


def _submit(worker: Worker, job: WorkerJob) -> "Future[Outcome]":
    worker.model = job.model
    try:
        return worker.submit(job)
    except Exception:  # it died between two jobs
        worker.restart()
        return worker.submit(job)


def _outcome(future: "Future[Outcome]", worker: Worker, job: WorkerJob) -> Outcome:
    try:
        return future.result()
    except Exception as error:
        worker.restart()
        worker.model = ""
        return Outcome(job.fingerprint, Status.died, reason_of_death(error))


def reason_of_death(error: BaseException) -> str:
    """Why a worker gave no answer, in one line."""
    text = " ".join(str(error).split())
    _, found, codes = text.partition("exit codes of the workers are ")
    detail = codes.partition("}")[0].lstrip("{") if found else f"{type(error).__name__}: {text[:300]}"
    return f"its process died ({detail}): killed, or out of memory"


def cores() -> int:
    """CPU cores that this process may use."""
    return max(1, int(threads.usable_cores()))


def check_settings(name: str, package: str, values: Mapping[str, Any], **lowest: float) -> None:
    """Refuse settings that are not numbers or are below the lowest allowed; null passes.

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
    """Raise ConfigFault if torchrun started this process: ``name`` starts processes of its own."""
    if processes() > 1:
        raise ConfigFault(
            f"{name} starts its own processes, but torchrun started this one (WORLD_SIZE={processes()}); "
            "use hydra/launcher=basic and hydra/sweeper=basic"
        )
