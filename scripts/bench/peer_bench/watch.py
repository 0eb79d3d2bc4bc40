"""Runs one command, and what it cost: seconds, peak memory, first optimizer step, time of the steps."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HOOK = Path(__file__).resolve().parent / "hook"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true",
    "CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
# Of the environment of this benchmark, what a command of another environment must not see.
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class CommandFailed(Exception):
    """A command did not end well; the text says which and how."""


@dataclass(frozen=True)
class Events:
    """What the hook saw of a training."""

    begun: tuple[float, float] | None = None  # of the first batch: Unix time, CPU time of the process
    steps: list[tuple[float, float]] = field(default_factory=list)  # likewise, of each step's end
    positions: int = 0  # of all batches, with padding
    tokens: int = 0  # without


@dataclass(frozen=True)
class Watched:
    """One command that ended well."""

    started: float  # Unix time
    seconds: float
    cpu_s: float  # of all its processes
    peak_bytes: int  # resident, of the largest process
    load: float  # average of the minute before, of the machine
    events: Events
    output: str

    @property
    def first_step_s(self) -> float | None:
        """From the start of the command to the end of its first optimizer step."""
        return self.events.steps[0][0] - self.started if self.events.steps else None

    @property
    def first_step_cpu_s(self) -> float | None:
        """CPU time of the process until then."""
        return self.events.steps[0][1] if self.events.steps else None

    @property
    def training_s(self) -> float | None:
        """From the first batch to the end of the last optimizer step."""
        return self._between(0)

    @property
    def training_cpu_s(self) -> float | None:
        """CPU time of the process between them, on which a busy machine has little effect."""
        return self._between(1)

    def _between(self, clock: int) -> float | None:
        begun, steps = self.events.begun, self.events.steps
        return steps[-1][clock] - begun[clock] if steps and begun is not None else None


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    pad_id: int = -1,
    expected: Sequence[int] = (0,),
    limit_s: float = 7200.0,
) -> Watched:
    """Run a command to its end and return what it cost.

    Args:
        environment: added to what every command gets; ``PYTHONPATH`` is added to the hook's folder.
        pad_id: the token that does not count.
        expected: exit codes of a good end.

    Raises:
        CommandFailed: it ended otherwise, or ran longer than ``limit_s``.
    """
    given = dict(environment or {})
    paths = [str(HOOK), *filter(None, [given.pop("PYTHONPATH", "")])]
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    with tempfile.TemporaryDirectory(prefix="peer-bench") as scratch:
        events, log = Path(scratch, "events"), Path(scratch, "log")
        hook = {
            "PYTHONPATH": os.pathsep.join(paths),
            "PEER_BENCH_EVENTS": str(events),
            "PEER_BENCH_PAD_ID": str(pad_id),
        }
        load = os.getloadavg()[0]
        with log.open("wb") as file:
            started = time.time()
            command = subprocess.Popen(
                [str(word) for word in words],
                cwd=cwd,
                env=kept | OFFLINE | hook | given,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            try:
                code, cpu, peak = _wait(command, started + limit_s)
            except BaseException:  # the benchmark is stopped: nothing of it goes on
                command.kill()
                command.wait()
                raise
            seconds = time.time() - started
        output = log.read_text(encoding="utf-8", errors="replace")
        if code not in expected:
            end = "\n".join(output.splitlines()[-25:])
            raise CommandFailed(f"{' '.join(map(str, words))}\nended with {code} after {seconds:.0f} s:\n{end}")
        return Watched(started, seconds, cpu, peak, load, read_events(events), output)


def _wait(command: "subprocess.Popen[bytes]", until: float) -> tuple[int, float, int]:
    """Exit code, CPU seconds, and peak resident bytes of the largest process; a command that runs too long is ended."""
    while True:
        pid, status, usage = os.wait4(command.pid, os.WNOHANG)
        if pid:
            command.returncode = os.waitstatus_to_exitcode(status)
            unit = 1 if sys.platform == "darwin" else 1024
            return command.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit
        if time.time() > until:
            command.terminate()
            until = float("inf")
        time.sleep(0.01)


def read_events(file: Path) -> Events:
    """The events of a command; none if it trained nothing."""
    begun, steps, positions, tokens = None, [], 0, 0
    for line in file.read_text(encoding="ascii").splitlines() if file.exists() else ():
        kind, when, cpu, *counts = line.split()
        if kind == "step":
            steps.append((float(when), float(cpu)))
        else:
            begun = (float(when), float(cpu)) if begun is None else begun
            positions, tokens = positions + int(counts[0]), tokens + int(counts[1])
    return Events(begun, steps, positions, tokens)
