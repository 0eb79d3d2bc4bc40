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

from harness.runtime import signals
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import Launcher, Worker, check_settings, cores, outcomes_of
from harness.sweep.launchers.worker import DIED, Job, Outcome

log = logging.getLogger(__name__)


GRACE_S = 60.0  # for workers to write a checkpoint, and that they were interrupted


# --- processes on this machine ----------------------------------------------------------------------------


@dataclass
class Joblib(Launcher):
    """Processes on this machine, by joblib's loky; one GPU each where there are several."""

    n_jobs: int | None  # null: one per GPU; without a GPU half the cores, at least two
    _slots: "list[LokyWorker]" = field(default_factory=list, init=False)

    def check(self) -> None:
        check_settings("joblib", "joblib", vars(self), n_jobs=1)

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        gpus = visible_gpus()
        most = self.n_jobs or len(gpus) or max(2, cores() // 2)
        count = min(most, len(jobs))
        where = f" on {min(count, len(gpus))} GPUs" if gpus else ""
        log.info("%d processes%s; their notes: %s", count, where, folder / "logs")
        # Of all that there may be, so that a run has the same threads in a short sweep and in a long one.
        self._slots += [LokyWorker(worker_environment(number, most, gpus)) for number in range(len(self._slots), count)]
        return outcomes_of(self._slots[:count], jobs, GRACE_S)

    def close(self) -> None:
        while self._slots:
            self._slots.pop().close()


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` may name for a single GPU of those that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [text.strip() for text in named.split(",") if text.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def worker_environment(number: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    """Variables of worker ``number`` of ``count``: its GPU, and its share of the cores unless that is set."""
    variables = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if len(gpus) > 1 else {}
    # Each process would start a thread per core otherwise, and all wait for one another.
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // count))} | variables


class LokyWorker(Worker):
    """One worker process of loky's, which starts a fresh interpreter instead of forking this one."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = variables
        self._start()

    def _start(self) -> None:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        parent = (os.getpid(),)
        self._pool = ProcessPoolExecutor(1, env=self._variables, initializer=exit_with_parent, initargs=parent)

    def submit(self, job: Job) -> "Future[Outcome]":
        return self._pool.submit(run_guarded, job)

    def ask_to_stop(self) -> None:
        for pid in list(self._pool._processes or ()):
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def restart(self) -> None:
        self.close(busy=True)
        self._start()

    def close(self, busy: bool = False) -> None:
        self._pool.shutdown(kill_workers=busy)


_running = threading.Lock()  # of a worker process: held during a run


def run_guarded(job: Job) -> Outcome:
    """``worker.run`` in a process that leaves no run half done, whatever becomes of its parent.

    Told to stop, it answers so: the process is none the worse for it.
    """
    with _running:
        try:
            with signals.listening():
                return worker.run_job(job)
        except signals.Interrupted as stop:
            return Outcome(job.fingerprint, DIED, f"its process was {stop}", 0.0)


def exit_with_parent(parent: int, look_s: float = 2.0) -> None:
    """End this process once its parent is gone, after the run in hand; loky's workers would wait for ever."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(look_s)
        with _running:
            os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()
