"""Several processes with the same plans: each plan runs once, and what a dead process held is free at once."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import HeldByAnotherProcess, RunFault
from harness.pipeline import lifecycle
from harness.pipeline.cache import ProcessCache
from harness.record import locks, store
from harness.sweep import claim
from harness.sweep.claim import run_cell
from tests.support.paths import ROOT
from tests.support.stored_records import fail, finish, started
from tests.support.sweeps import make_cell

# A sweep whose runs note their fingerprint and sleep; the one of lora.r=3 fails.
SWEEP = """
import logging, os, sys, time
from dataclasses import replace
from pathlib import Path
logging.basicConfig(level="INFO", format="%(message)s")
from harness.errors import RunFault
from harness.plan.read import read_config
from harness.sweep import claim, dispatch, execute
from harness.sweep.cells import Cell
from harness.sweep.outcome import Outcome, Status, outcome_of_error
from functools import partial
from tests.support.configs import overridden
from tests.support.stored_records import fail, finish, started

runs_dir, model = Path(sys.argv[1]), sys.argv[2]
execute.check_models = execute.check_data = lambda cells: None
claim.POLL_S = 0.05

def run(plan, options, name, held):
    with open(runs_dir / "trained", "a") as file:
        file.write(f"{plan.fingerprint} {os.getpid()}\\n")
    record = started(Cell((), plan, options))
    time.sleep(0.15)
    if plan.settings["r"] == 3:
        error = RunFault("it does not fit")
        fail(runs_dir, record, error)
        raise error
    assert held()
    return finish(runs_dir, record)

def outcome_of(cell):
    try:
        record = claim.run_cell(replace(cell, attempts=None), run)
    except Exception as error:
        return outcome_of_error(cell.plan.fingerprint, error, 0.0)
    return Outcome(cell.plan.fingerprint, Status.finished, record=record)

grid = []
for r in range(1, 6):
    plan, options = read_config(overridden(f"model.path={model}", f"lora.r={r}"))
    grid.append(Cell((f"lora.r={r}",), plan, replace(options, runs_dir=runs_dir)))
print("ready", flush=True)
sys.stdin.readline()
execute.run_sweep(grid, partial(dispatch.run_here, outcome_of))
"""


def start(runs_dir: Path, model: Path) -> subprocess.Popen:
    arguments = [sys.executable, "-c", SWEEP, str(runs_dir), str(model)]
    return subprocess.Popen(
        arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def trained(runs_dir: Path) -> list[list[str]]:
    return [line.split() for line in (runs_dir / "trained").read_text().splitlines()]


@pytest.mark.slow
def test_two_sweeps_started_together_train_each_common_plan_once(tmp_path, weightless):
    sweeps = [start(tmp_path, weightless) for _ in range(2)]
    assert [each.stdout.readline() for each in sweeps] == ["ready\n"] * 2
    for each in sweeps:
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate(timeout=120) for each in sweeps]
    done = trained(tmp_path)
    assert len({fingerprint for fingerprint, _ in done}) == len(done) == 5  # the one that fails, too
    assert len({process for _, process in done}) == 2
    for (out, err), each in zip(said, sweeps, strict=True):
        assert "postponed" in err
        assert "1 of 5 runs failed" in err
        others = {process for _, process in done} - {str(each.pid)}
        assert f"finished by process {others.pop()} on" in out


@pytest.mark.slow
@pytest.mark.posix
def test_a_killed_sweep_frees_its_plan_at_once(tmp_path, weightless):
    first, second = (start(tmp_path, weightless) for _ in range(2))
    for each in (first, second):
        assert each.stdout.readline() == "ready\n"
    first.stdin.write("go\n")
    first.stdin.flush()
    while not (tmp_path / "trained").exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    _, err = second.communicate("go\n", timeout=120)
    assert f"replacing process {first.pid} on" in err
    records = store.all_records(tmp_path)
    assert sorted(each["status"] for each in records) == ["failed", *["finished"] * 4]
    assert {each["owner"]["pid"] for each in records} >= {second.pid}


@pytest.fixture
def cell(tmp_path, weightless):
    return make_cell(tmp_path, weightless, "lora.r=8", attempts=0)


def test_plan_that_another_process_runs_is_left_to_it(cell):
    with (
        locks.take_lock(cell.folder),
        pytest.raises(HeldByAnotherProcess, match=f"process {os.getpid()} on .* is running"),
    ):
        run_cell(cell, lambda *_: pytest.fail("it ran"))


def test_single_run_waits_for_the_other_and_uses_its_record(cell, monkeypatch):
    lock = locks.take_lock(cell.folder)

    def finish_meanwhile(_):
        finish(cell.options.runs_dir, started(cell))
        lock.release()

    monkeypatch.setattr(claim, "time", SimpleNamespace(sleep=finish_meanwhile))
    record = run_cell(cell, lambda *_: pytest.fail("it ran"), wait=True)
    assert record["status"] == "finished"


def test_failure_of_another_since_the_command_began_is_this_ones_result_and_an_older_one_is_not(cell):
    runs_dir = cell.options.runs_dir
    fail(runs_dir, started(cell, pid=4711), RunFault("no memory"))
    with pytest.raises(RunFault, match=r"failed by process 4711 on .*: no memory"):
        run_cell(cell, lambda *_: pytest.fail("it ran"))
    assert run_cell(replace(cell, attempts=1), lambda *_: {"ran": True}) == {"ran": True}


def test_interruption_of_another_is_no_result(cell):
    fail(cell.options.runs_dir, started(cell), KeyboardInterrupt())
    assert run_cell(cell, lambda *_: {"ran": True}) == {"ran": True}


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_run_that_lost_its_lock_leaves_the_others_record_alone(cell, ends):
    def other_finishes():
        return finish(cell.options.runs_dir, started(cell, pid=4711))

    def run():
        with lifecycle.open_run(cell.plan, cell.options, "", ProcessCache(), held=lambda: False) as this:
            other_finishes()
            if ends == "badly":
                raise ZeroDivisionError
            this.publish()

    with pytest.raises(HeldByAnotherProcess if ends == "well" else ZeroDivisionError):
        run()
    record = store.read_record(cell.options.runs_dir, cell.plan.fingerprint)
    assert (record["status"], record["owner"]["pid"]) == ("finished", 4711)
