"""What SLURM says about its jobs, and which of them an earlier command has left in the queue.

Whether a job is alive is asked of ``squeue``: submitit asks ``sacct``, which sees nothing on a cluster without an
accounting database.
"""

import getpass
import json
import logging
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.record.files import atomic_write_text
from harness.sweep.launchers.worker import WorkerJob

log = logging.getLogger(__name__)


def states() -> dict[str, str] | None:
    """State of each of this user's jobs that has not ended, by id; None if SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer (%s); the jobs are not affected", error)
        return None
    return dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)


def reason_of_end(job_id: str) -> str:
    """Why SLURM ended the job, as far as it remembers."""
    try:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job_id], capture_output=True, text=True)
    except OSError:
        return "SLURM does not say why"
    state = re.search(r"JobState=(\S+) Reason=(\S+)", shown.stdout)
    return f"{state[1]}, reason {state[2]}" if state else "SLURM no longer says why"


def log_change(job_id: str, batch: Sequence[WorkerJob], before: str | None, now: str | None) -> None:
    """Say how a job's state has changed since the last look."""
    if now and now != before:
        back = ", back in the queue" if now == "PENDING" and before else ""
        log.info("%s %s%s: %s", job_id, now, back, "; ".join(job.name for job in batch))


def note_jobs(folder: Path, submitted: Mapping[Path, Sequence[WorkerJob]]) -> None:
    """Write down which plans the submitted jobs run, for a later command."""
    content = {str(path.relative_to(folder)): [job.fingerprint for job in batch] for path, batch in submitted.items()}
    atomic_write_text(folder / "slurm" / "jobs.json", json.dumps(content, indent=1))


def jobs_in_queue(folder: Path, jobs: Sequence[WorkerJob]) -> dict[Path, list[WorkerJob]]:
    """The jobs that an earlier command has left in the queue: they are waited for, not submitted twice."""
    try:
        noted = json.loads((folder / "slurm" / "jobs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    queue, wanted = states() or {}, {job.fingerprint: job for job in jobs}
    batches = {folder / name: [wanted[f] for f in prints if f in wanted] for name, prints in noted.items()}
    return {path: batch for path, batch in batches.items() if path.name in queue and batch}
