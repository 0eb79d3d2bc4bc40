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

ROUTINE = {"", "None", "Priority", "Resources", "JobArrayTaskLimit"}  # reasons that mean: other jobs are first


def states(warn: bool = True) -> dict[str, str] | None:
    """State of each of this user's jobs that has not ended, by id; None if SLURM does not answer.

    A job that waits for more than its turn has the reason in its state: ``PENDING (PartitionConfig)`` asks for more
    than any node has, and SLURM takes it and never starts it.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i %T %r", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        if warn:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            log.warning("squeue does not answer (%s); the jobs are not affected; asking again", said[-1])
        return None
    lines = re.findall(r"^(\d\S*) ([A-Z_]+) (.*)$", done.stdout, re.MULTILINE)
    return {job: _state(state, reason.strip("() ")) for job, state, reason in lines}


def _state(state: str, reason: str) -> str:
    return f"{state} ({reason})" if state == "PENDING" and reason not in ROUTINE else state


def reason_of_end(job_id: str) -> str:
    """Why SLURM ended the job, as far as it remembers."""
    try:
        shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job_id], capture_output=True, text=True)
    except OSError:
        return "SLURM does not say why"
    found = re.search(r"JobState=(\S+) Reason=(\S+)", shown.stdout)
    if found is None:
        return "SLURM no longer says why"
    return found[1] if found[2] in ROUTINE else f"{found[1]}, reason {found[2]}"


def log_change(job_id: str, batch: Sequence[WorkerJob], before: str | None, now: str | None) -> None:
    """Say how a job's state has changed since the last look."""
    if now and now != before:
        again = before is not None and now.startswith("PENDING") and not before.startswith("PENDING")
        back = ", back in the queue" if again else ""
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
