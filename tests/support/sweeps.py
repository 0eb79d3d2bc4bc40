"""Cells, worker jobs and whole commands for the tests of sweeps."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.plan.read import read_config
from harness.record import provenance, store
from harness.sweep.cells import Cell
from harness.sweep.launchers.worker import ConfigSource, WorkerJob
from harness.sweep.outcome import Outcome, Status
from tests.support.configs import CONF, overridden
from tests.support.paths import ROOT
from tests.support.stored_records import finish, started

SMALL = (
    "trainer.max_steps=2",
    *("data.limits.train=8", "data.limits.validation=4", "data.limits.test=4"),
    *("scoring.metrics=[exact_match]", "scoring.forgetting=null"),
)

# What ``auto`` means is not told of other machines: to have the fingerprints of runs here, such sweeps name it.
HERE = ("model.device=cpu", "model.dtype=float32")

needs_tiny = pytest.mark.skipif(
    not (ROOT / "data" / "tiny" / "model.safetensors").exists(), reason="data/tiny is not there"
)


def make_cell(runs_dir: Path, model: Path, *overrides: str, attempts: int | None = None, **options: Any) -> Cell:
    """A cell with a real plan; ``overrides`` choose no groups."""
    plan, read = read_config(overridden(f"model.path={model}", *overrides))
    return Cell(overrides, plan, replace(read, runs_dir=runs_dir, **options), attempts)


def finish_record(cell: Cell, code: str | None = None, **more: Any) -> dict[str, Any]:
    """A new, finished record of the cell's plan; by another code version if ``code`` is given."""
    record = started(cell)
    for name, value in more.items():
        setattr(record, name, value)
    record.code.version = code or record.code.version
    return finish(cell.options.runs_dir, record)


def worker_job(
    fingerprint: str = "f" * 12, model: str = "m", folder: Path = Path("/tmp"), *overrides: str
) -> WorkerJob:
    """A job as a launcher gets it."""
    source = ConfigSource(config_dir=str(CONF), config_name="config", searchpath=(), cwd=str(ROOT))
    code = provenance.code_version()
    return WorkerJob(fingerprint, fingerprint, model, overrides, "s", source, code, str(folder), attempts=0, stop=None)


def finished(fingerprint: str) -> Outcome:
    """The outcome of a finished run."""
    return Outcome(fingerprint, Status.finished, seconds=1.0)


class SweepCommand:
    """``python -m harness -m`` on small data, in the background."""

    def __init__(self, runs_dir: Path, *overrides: str, **variables: str) -> None:
        self.runs_dir, self.output = runs_dir, runs_dir.with_suffix(".out")
        command = [sys.executable, "-m", "harness", "-m", *SMALL, f"runs_dir={runs_dir}", *overrides]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | variables
        with open(self.output, "w") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def end(self, seconds: float = 400) -> tuple[int, str]:
        """Exit code and output; fails the test after so many seconds."""
        try:
            return self.process.wait(seconds), self.output.read_text()
        except subprocess.TimeoutExpired:
            self.process.kill()
            pytest.fail(f"no end after {seconds} s: {self.output.read_text()}")

    def worker_of(self, fingerprint: str, seconds: float = 200) -> int:
        """Process id of the worker on this plan, once there is one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for file in self.runs_dir.glob(f"sweeps/*/workers/{fingerprint}.json"):
                return json.loads(file.read_text())["pid"]
            time.sleep(0.05)
        pytest.fail(f"no worker for {fingerprint}: {self.output.read_text()}")

    def says(self, text: str, seconds: float = 200) -> None:
        """Wait until the command has printed the text; fails the test if it ends before, or after so many seconds."""
        self._waits_for(lambda: text in self.output.read_text(), text, seconds)

    def trains(self, fingerprint: str, seconds: float = 200) -> None:
        """Wait until the first steps of a run in a worker, which then has something to write a checkpoint of."""
        begun = ": learning rate "  # the last line before training
        logs = f"sweeps/*/logs/{fingerprint}.log"
        self._waits_for(lambda: any(begun in log.read_text() for log in self.runs_dir.glob(logs)), begun, seconds)
        time.sleep(2)

    def _waits_for(self, there: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if there():
                return
            time.sleep(0.1)
        self.process.kill()
        pytest.fail(f"no {what!r} from it: {self.output.read_text()}")

    def records(self) -> dict[str, dict[str, Any]]:
        """By fingerprint."""
        return {record["fingerprint"]: record for record in store.all_records(self.runs_dir)}


def assert_same_results(records: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Whether all is equal that a run leaves, except its times, its place and its history."""
    assert records.keys() == expected.keys()
    for fingerprint, record in records.items():
        for key in ("scores", "audit", "rows", "parameters", "adapter", "plan"):
            assert record[key] == expected[fingerprint][key], key
        for key in ("curve", "validation", "best_step", "tokens"):
            assert record["training"][key] == expected[fingerprint]["training"][key], key
