"""Worker processes on this machine, by joblib's loky."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.runtime import threads
from harness.runtime.platform import can_signal_others, watch_parent
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import GRACE_S, Launcher, Worker, check_settings, cores, run_jobs
from harness.sweep.launchers.worker import WorkerJob
from harness.sweep.outcome import Outcome

log = logging.getLogger(__name__)


@dataclass
class Joblib(Launcher):
    """Processes on this machine, by joblib's loky; one GPU each if there are several."""

    n_jobs: int | None  # null: one per GPU; without a GPU half the cores, at least two
    _workers: "list[LokyWorker]" = field(default_factory=list, init=False)

    def check(self) -> None:
        check_settings("joblib", "joblib", vars(self), n_jobs=1)

    def run(self, jobs: Sequence[WorkerJob], folder: Path) -> Iterator[Outcome]:
        gpus = visible_gpus()
        most = self.n_jobs or len(gpus) or max(2, cores() // 2)
        count = min(most, len(jobs))
        where = f" on {min(count, len(gpus))} GPUs" if gpus else ""
        log.info("%d processes%s; their logs: %s", count, where, folder / "logs")
        # Cores are shared among ``most``, so that a run has as many threads in a short sweep as in a long one.
        self._workers += [
            LokyWorker(worker_environment(number, most, gpus)) for number in range(len(self._workers), count)
        ]
        return run_jobs(self._workers[:count], jobs, GRACE_S)

    def close(self) -> None:
        while self._workers:
            self._workers.pop().close()


def visible_gpus() -> list[str]:
    """Values of ``CUDA_VISIBLE_DEVICES``, each for one of the GPUs that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [text.strip() for text in named.split(",") if text.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def worker_environment(number: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """Environment of worker ``number`` of ``count``: its GPU, and its share of the cores unless that is set."""
    variables = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if len(gpus) > 1 else {}
    # Otherwise each process would start a thread per core, and all would wait for one another.
    return {threads.GIVEN: str(threads.share(count))} | variables


class LokyWorker(Worker):
    """One worker process of loky's, which starts a fresh interpreter instead of forking this one."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._job: WorkerJob | None = None
        self._start()

    def _start(self) -> None:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        parent = (os.getpid(),)
        self._pool = ProcessPoolExecutor(1, env=self._variables, initializer=exit_with_parent, initargs=parent)

    @property
    def process_ids(self) -> list[int]:
        """Of the process, once it has a job."""
        return list(self._pool._processes or ())

    def submit(self, job: WorkerJob) -> "Future[Outcome]":
        self._job = job
        return self._pool.submit(run_guarded, job)

    def ask_to_stop(self) -> None:
        if not can_signal_others():
            worker.ask_to_stop(self._job)
            return
        for pid in self.process_ids:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def restart(self) -> None:
        self.close(busy=True)
        self._start()

    def close(self, busy: bool = False) -> None:
        self._pool.shutdown(kill_workers=busy)


_running = threading.Lock()  # of a worker process: held during a run


def run_guarded(job: WorkerJob) -> Outcome:
    """``worker.run_until_stopped``, during which this process does not exit if its parent is gone."""
    with _running:
        return worker.run_until_stopped(job)


def exit_with_parent(parent: int, poll_s: float = 2.0) -> None:
    """End this process once its parent is gone, after the current run; loky's workers would wait forever."""

    lives = watch_parent(parent)

    def watch() -> None:
        while lives():
            time.sleep(poll_s)
        with _running:
            os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
