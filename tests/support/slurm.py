"""A throw-away SLURM of two nodes on this machine, from Debian's packages: ``scripts/slurm_local`` in a new folder."""

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tests.support.paths import ROOT

NODES = ("n1", "n2")
MISSING = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if shutil.which(name) is None]
REASON = "slurmd starts jobs as root" if hasattr(os, "geteuid") and os.geteuid() else f"no {', '.join(MISSING)}"

needs_slurm = pytest.mark.skipif(
    bool(MISSING) or REASON.startswith("slurmd"), reason=f"{REASON} (Debian: apt-get install slurm-wlm munge, as root)"
)


@contextmanager
def slurm_cluster() -> Iterator[None]:
    """SLURM's commands, and those of this process's children, use the new cluster until the end.

    Its nodes have one core each, and its partitions are ``batch`` and ``urgent``, which preempts.
    """
    # A short path: that of munge's socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    settings = {"SLURM_LOCAL_DIR": str(folder), "SLURM_LOCAL_NODES": str(len(NODES)), "SLURM_LOCAL_CPUS": "1"}
    port = {"SLURM_LOCAL_PORT": str(_free_ports(1 + len(NODES)))}
    with mock.patch.dict(os.environ, settings | port | {"SLURM_CONF": str(folder / "slurm.conf")}):
        try:
            _local("up")
            yield
        finally:
            _local("down")
            shutil.rmtree(folder, ignore_errors=True)


def ask(*command: str) -> str:
    """What a command of SLURM prints; fails the test if SLURM refuses."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


def hasten(process: "subprocess.Popen[bytes]", seconds: float = 300) -> None:
    """Until the process ends: SLURM lets a job that it has sent back wait for two minutes; root need not."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        for job in ask("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i").split():
            subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], capture_output=True)
        time.sleep(1)


def _local(command: str) -> None:
    done = subprocess.run([str(ROOT / "scripts" / "slurm_local"), command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _free_ports(count: int) -> int:
    """The first of so many free ports; below those that the system gives to connections."""
    for first in random.sample(range(20000, 30000, 10), 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as server:
                    server.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports from 20000 to 30000")
