"""Sweeps in a SLURM queue, through submitit: an array of jobs that survive time limits and preemption.

Near its time limit a job puts itself back into the queue; a preempted one is put back by SLURM.
"""

import logging
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ConfigFault
from harness.runtime import signals
from harness.sweep.launchers import slurm_queue, worker
from harness.sweep.launchers.base import Launcher, check_settings
from harness.sweep.launchers.worker import WorkerJob
from harness.sweep.outcome import Outcome, Status

log = logging.getLogger(__name__)

USER_SIGNAL = getattr(signal, "SIGUSR2", signal.SIGTERM)  # what submitit asks SLURM to send, and requeues at

LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless an administrator has changed it

LOOKS = 3  # at which a job without a result may be gone from the queue: shared folders show new files late


class ArrayJob:
    """What one SLURM job runs: plans one after another. Picklable; resumes after the plans that are done."""

    def __init__(self, jobs: Sequence[WorkerJob], done: Sequence[Outcome] = ()) -> None:
        self.jobs, self.done = list(jobs), list(done)

    def __call__(self) -> list[dict[str, Any]]:
        """Run the jobs that are not done. On a signal, write a checkpoint, then let submitit handle the signal."""
        requeue = signal.getsignal(USER_SIGNAL)
        try:
            with signals.listening((*signals.SIGNALS, USER_SIGNAL)):
                for job in self.jobs[len(self.done) :]:
                    self.done.append(worker.run_job(job))
        except signals.Interrupted as stop:
            if stop.signum != USER_SIGNAL or not callable(requeue):
                raise SystemExit(stop.exit_code) from stop  # SLURM itself puts preempted jobs back
            requeue(stop.signum, None)
        return [outcome.to_plain() for outcome in self.done]

    def checkpoint(self) -> Any:
        """What submitit puts into the queue in place of this job, shortly before its time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(ArrayJob(self.jobs, self.done))


@dataclass(frozen=True)
class Slurm(Launcher):
    """Jobs of a SLURM array."""

    elsewhere = True

    outlives: ClassVar[bool] = True

    partition: str | None
    time_min: int  # of one job; then it goes back into the queue
    max_timeouts: int  # how often it does that
    signal_delay_s: int  # before its time is up
    cpus: int
    gpus: int
    mem_gb: float | None
    max_parallel: int
    plans_per_job: int
    setup: Sequence[str]
    more: Mapping[str, Any]
    poll_s: float

    def check(self) -> None:
        if not hasattr(signal, "SIGUSR2"):
            raise ConfigFault("hydra/launcher=slurm needs Linux, as SLURM does; start it there, or in WSL")
        least = {"time_min": 1, "max_timeouts": 0, "signal_delay_s": 1, "cpus": 1, "gpus": 0, "mem_gb": 0}
        check_settings("slurm", "submitit", vars(self), **least, max_parallel=1, plans_per_job=1, poll_s=0.1)

    def run(self, jobs: Sequence[WorkerJob], folder: Path) -> Iterator[Outcome]:
        import submitit

        waiting = slurm_queue.jobs_in_queue(folder, jobs)
        queued = {job.fingerprint for batch in waiting.values() for job in batch}
        rest = [job for job in jobs if job.fingerprint not in queued]
        if queued:
            log.info("%d runs of an earlier command are already in the queue", len(queued))
        waiting |= self._submit(submitit, rest, folder) if rest else {}
        slurm_queue.note_jobs(folder, waiting)
        ids = " ".join(sorted({path.name.partition("_")[0] for path in waiting}))
        log.info("SLURM jobs %s; scancel %s ends them; their output: %s", ids, ids, folder / "slurm")
        try:
            yield from self.outcomes_of(waiting)
        except KeyboardInterrupt:
            log.warning(
                "the SLURM jobs continue without this command: scancel %s ends them; run the same command again to "
                "wait for them",
                ids,
            )
            raise

    def close(self) -> None:
        """Nothing to end: each job ends with its plans."""

    def _submit(self, submitit: Any, jobs: Sequence[WorkerJob], folder: Path) -> dict[Path, list[WorkerJob]]:
        """Submit the jobs; returns them by the path of submitit's files: ``<folder>/<id of the SLURM job>``."""
        # A new folder each time: a cluster that was set up again numbers its jobs from 1 again.
        place = folder / "slurm" / uuid.uuid4().hex[:8]
        batches = batch_by_model(jobs, self.plans_per_job)
        submitted: dict[Path, list[WorkerJob]] = {}
        try:
            executor = submitit.SlurmExecutor(place, max_num_timeout=self.max_timeouts)
            executor.update_parameters(**self.sbatch_parameters())
            for first in range(0, len(batches), LARGEST_ARRAY):
                part = batches[first : first + LARGEST_ARRAY]
                with executor.batch():
                    tickets = [executor.submit(ArrayJob(batch)) for batch in part]
                submitted |= {place / ticket.job_id: batch for ticket, batch in zip(tickets, part, strict=True)}
        except (RuntimeError, ValueError, subprocess.CalledProcessError, FileNotFoundError) as error:
            reason = " ".join(str(error).split())[:500]
            raise ConfigFault(
                f"SLURM refuses the jobs ({reason}); correct hydra.launcher.engine, or run on a machine that "
                "has sbatch and srun (scripts/slurm_local starts a SLURM of one node)"
            ) from error
        return submitted

    def sbatch_parameters(self) -> dict[str, Any]:
        """The settings under submitit's names."""
        root = Path(worker.__file__).parents[3]
        optional = {"partition": self.partition, "gpus_per_node": self.gpus or None}
        named: dict[str, Any] = {key: value for key, value in optional.items() if value is not None}
        if self.mem_gb is not None:
            named["mem"] = f"{int(self.mem_gb * 1024)}MB"
        own = [f'export PYTHONPATH="{root}${{PYTHONPATH:+:$PYTHONPATH}}"', f"export OMP_NUM_THREADS={self.cpus}"]
        return named | {
            "job_name": "harness",
            "time": self.time_min,
            "signal_delay_s": self.signal_delay_s,
            "cpus_per_task": self.cpus,
            "array_parallelism": self.max_parallel,
            "setup": [*own, *self.setup],
            # Many clusters requeue nothing unless asked to.
            "additional_parameters": {"requeue": True, **self.more},
        }

    def outcomes_of(self, waiting: dict[Path, list[WorkerJob]]) -> Iterator[Outcome]:
        """Outcomes of submitted jobs, each when its result is there or the job is gone from the queue."""
        states, gone = dict[Path, str](), dict[Path, int]()
        queue: dict[str, str] | None = {}
        while waiting:
            queue = slurm_queue.states(warn=queue is not None)
            for path, batch in list(waiting.items()):
                if _result_file(path).exists():
                    del waiting[path]
                    yield from _read_outcomes(path, batch)
                elif queue is not None:
                    slurm_queue.log_change(path.name, batch, states.get(path), queue.get(path.name))
                    states[path] = queue.get(path.name, "")
                    gone[path] = 0 if path.name in queue else gone.get(path, 0) + 1
                    if gone[path] >= LOOKS:
                        del waiting[path]
                        reason = slurm_queue.reason_of_end(path.name)
                        yield from _died(batch, f"its SLURM job {path.name} ended without a result ({reason})")
            if waiting:
                time.sleep(self.poll_s)


def batch_by_model(jobs: Sequence[WorkerJob], size: int) -> list[list[WorkerJob]]:
    """Batches of at most ``size`` jobs, each on one base model."""
    by_model = [list(group) for _, group in groupby(jobs, key=lambda job: job.model)]
    return [group[first : first + size] for group in by_model for first in range(0, len(group), size)]


def _result_file(path: Path) -> Path:
    return path.with_name(f"{path.name}_0_result.pkl")


def _read_outcomes(path: Path, batch: Sequence[WorkerJob]) -> Iterator[Outcome]:
    import pickle

    # Safe to unpickle: written by our own job in our own folder.
    kind, answer = pickle.loads(_result_file(path).read_bytes())
    if kind == "success":
        yield from (Outcome.from_plain(each) for each in answer)
    else:
        yield from _died(batch, f"its SLURM job {path.name} failed: {answer.strip().splitlines()[-1]}")


def _died(batch: Sequence[WorkerJob], reason: str) -> Iterator[Outcome]:
    """Outcomes of a job that gave no answer; the records of plans that it had finished say so."""
    return (Outcome(job.fingerprint, Status.died, reason) for job in batch)
