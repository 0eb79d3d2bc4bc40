"""Sweeps in a SLURM queue, through submitit: an array of jobs that survive time limits and pre-emption.

Near its time limit a job puts itself back into the queue; pre-empted, SLURM does that. Whether a job still lives is
asked of ``squeue``: submitit's own look, ``sacct``, sees nothing where a cluster keeps no accounting database.
"""

import getpass
import json
import logging
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ConfigFault
from harness.record.files import atomic_write_text
from harness.runtime import signals
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import Launcher, check_settings
from harness.sweep.launchers.worker import DIED, Job, Outcome

log = logging.getLogger(__name__)


USER_SIGNAL = signal.SIGUSR2  # what submitit asks SLURM to send, and requeues at


LARGEST_ARRAY = 1000  # SLURM's MaxArraySize is 1001 unless an administrator has changed it


LOOKS = 3  # without a result that a job may be gone from the queue: shared folders show new files late


class ArrayJob:
    """What one SLURM job runs: plans one after the other. Picklable, and continued where it was cut off."""

    def __init__(self, jobs: Sequence[Job], done: Sequence[Outcome] = ()) -> None:
        self.jobs, self.done = list(jobs), list(done)

    def __call__(self) -> list[dict[str, Any]]:
        """Run what is not done. Told to stop, write a checkpoint, then let submitit do what it does on that signal."""
        requeues = signal.getsignal(USER_SIGNAL)
        try:
            with signals.listening((*signals.SIGNALS, USER_SIGNAL)):
                for job in self.jobs[len(self.done) :]:
                    self.done.append(worker.run_job(job))
        except signals.Interrupted as stop:
            if stop.signum != USER_SIGNAL or not callable(requeues):
                raise SystemExit(stop.exit_code) from stop  # SLURM itself puts what it pre-empts back
            requeues(stop.signum, None)
        return [asdict(outcome) for outcome in self.done]

    def checkpoint(self) -> Any:
        """What submitit puts into the queue in place of this job, shortly before its time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(ArrayJob(self.jobs, self.done))


@dataclass(frozen=True)
class Slurm(Launcher):
    """Jobs of a SLURM array."""

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
        least = {"time_min": 1, "max_timeouts": 0, "signal_delay_s": 1, "cpus": 1, "gpus": 0, "mem_gb": 0}
        check_settings("slurm", "submitit", vars(self), **least, max_parallel=1, plans_per_job=1, poll_s=0.1)

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        import submitit

        waiting = _rejoin(folder, jobs)
        again = {job.fingerprint for batch in waiting.values() for job in batch}
        rest = [job for job in jobs if job.fingerprint not in again]
        if again:
            log.info("%d runs are in the queue already, of an earlier command", len(again))
        waiting |= self._submit(submitit, rest, folder) if rest else {}
        _note(folder, waiting)
        ids = " ".join(sorted({path.name.partition("_")[0] for path in waiting}))
        log.info("SLURM jobs %s; scancel %s ends them; their output: %s", ids, ids, folder / "slurm")
        try:
            yield from self._outcomes(waiting)
        except KeyboardInterrupt:
            log.warning("the SLURM jobs go on without this command: scancel %s ends them; run it again to wait", ids)
            raise

    def close(self) -> None:
        """Nothing to end: each job ends with its plans."""

    def _submit(self, submitit: Any, jobs: Sequence[Job], folder: Path) -> dict[Path, list[Job]]:
        """Jobs by where submitit keeps theirs: ``<folder>/<id of the SLURM job>``."""
        # A folder of its own: a cluster set up anew counts its jobs from 1 again.
        place = folder / "slurm" / uuid.uuid4().hex[:8]
        batches = _batches(jobs, self.plans_per_job)
        submitted: dict[Path, list[Job]] = {}
        try:
            executor = submitit.SlurmExecutor(place, max_num_timeout=self.max_timeouts)
            executor.update_parameters(**self._parameters())
            for first in range(0, len(batches), LARGEST_ARRAY):
                part = batches[first : first + LARGEST_ARRAY]
                with executor.batch():
                    tickets = [executor.submit(ArrayJob(batch)) for batch in part]
                submitted |= {place / ticket.job_id: batch for ticket, batch in zip(tickets, part, strict=True)}
        except (RuntimeError, ValueError, subprocess.CalledProcessError, FileNotFoundError) as error:
            reason = " ".join(str(error).split())[:500]
            raise ConfigFault(
                f"SLURM does not take the jobs ({reason}); correct hydra.launcher.engine, or run on a machine that "
                "has sbatch and srun (scripts/slurm_local brings up a SLURM of one node)"
            ) from error
        return submitted

    def _parameters(self) -> dict[str, Any]:
        root = Path(worker.__file__).parents[3]
        given = {"partition": self.partition, "gpus_per_node": self.gpus or None, "mem_gb": self.mem_gb}
        named = {key: value for key, value in given.items() if key != "mem_gb" and value is not None}
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

    def _outcomes(self, waiting: dict[Path, list[Job]]) -> Iterator[Outcome]:
        """Of each job, when its result is there or it is gone from the queue."""
        states, gone = dict[Path, str](), dict[Path, int]()
        while waiting:
            queue = _queue()
            for path, batch in list(waiting.items()):
                if _result(path).exists():
                    del waiting[path]
                    yield from _read(path, batch)
                elif queue is not None:
                    _signal(path, batch, states.get(path), queue.get(path.name))
                    states[path] = queue.get(path.name, "")
                    gone[path] = 0 if path.name in queue else gone.get(path, 0) + 1
                    if gone[path] >= LOOKS:
                        del waiting[path]
                        yield from _dead(batch, f"its SLURM job {path.name} ended without a result ({_end(path.name)})")
            if waiting:
                time.sleep(self.poll_s)


def _batches(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """At most ``size`` jobs each, on one base model each."""
    by_model = [list(group) for _, group in groupby(jobs, key=lambda job: job.model)]
    return [group[first : first + size] for group in by_model for first in range(0, len(group), size)]


def _result(path: Path) -> Path:
    return path.with_name(f"{path.name}_0_result.pkl")


def _read(path: Path, batch: Sequence[Job]) -> Iterator[Outcome]:
    import pickle

    # Written by our own job in our own folder.
    kind, answer = pickle.loads(_result(path).read_bytes())
    if kind == "success":
        yield from (Outcome(**each) for each in answer)
    else:
        yield from _dead(batch, f"its SLURM job {path.name} failed: {answer.strip().splitlines()[-1]}")


def _dead(batch: Sequence[Job], reason: str) -> Iterator[Outcome]:
    """Outcomes of a job that gave no answer; plans that it had finished are so by their records."""
    return (Outcome(job.fingerprint, DIED, reason, 0.0) for job in batch)


# --- what SLURM says --------------------------------------------------------------------------------------


def _queue() -> dict[str, str] | None:
    """State of each of this user's jobs that is not over, by id; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer (%s); the jobs are not affected", error)
        return None
    return dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)


def _end(job_id: str) -> str:
    """Why SLURM ended the job, as far as it remembers."""
    try:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job_id], capture_output=True, text=True)
    except OSError:
        return "SLURM does not say why"
    state = re.search(r"JobState=(\S+) Reason=(\S+)", shown.stdout)
    return f"{state[1]}, reason {state[2]}" if state else "SLURM no longer says why"


def _signal(path: Path, batch: Sequence[Job], before: str | None, now: str | None) -> None:
    """Say what became of a job since the last look."""
    if now and now != before:
        back = ", back in the queue" if now == "PENDING" and before else ""
        log.info("%s %s%s: %s", path.name, now, back, "; ".join(job.name for job in batch))


# --- going on after the command was cut off ---------------------------------------------------------------


def _note(folder: Path, waiting: Mapping[Path, Sequence[Job]]) -> None:
    kept = {str(path.relative_to(folder)): [job.fingerprint for job in batch] for path, batch in waiting.items()}
    atomic_write_text(folder / "slurm" / "jobs.json", json.dumps(kept, indent=1))


def _rejoin(folder: Path, jobs: Sequence[Job]) -> dict[Path, list[Job]]:
    """Jobs that an earlier command has left in the queue: they are waited for, not submitted twice."""
    try:
        kept = json.loads((folder / "slurm" / "jobs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    queue, wanted = _queue() or {}, {job.fingerprint: job for job in jobs}
    batches = {folder / name: [wanted[f] for f in prints if f in wanted] for name, prints in kept.items()}
    return {path: batch for path, batch in batches.items() if path.name in queue and batch}
