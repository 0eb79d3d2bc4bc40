"""Cells run here one after another, or as jobs on workers; the limit of failures reaches both."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.record import provenance, store
from harness.sweep import dispatch
from harness.sweep.launchers import worker
from harness.sweep.launchers.base import Launcher
from harness.sweep.launchers.worker import ConfigSource
from harness.sweep.outcome import Outcome, Status
from harness.sweep.worklist import Worklist
from tests.support.stored_records import started
from tests.support.sweeps import finish_record, make_cell

SOURCE = ConfigSource("", "config", (), "/")


class FakeLauncher(Launcher):
    """Answers for each job in this thread, in turn."""

    def __init__(self, answer) -> None:
        self.answer, self.closed = answer, False

    def check(self) -> None:
        """Has no settings."""

    def run(self, jobs, folder) -> Iterator[Outcome]:
        return (self.answer(job) for job in jobs)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cells(tmp_path, weightless):
    return [make_cell(tmp_path, weightless, f"lora.r={r}", attempts=0) for r in range(1, 7)]


def on_workers(launcher: Launcher, cells, runs_dir: Path, max_failures: int | None = None):
    worklist = Worklist(runs_dir, max_failures)
    run = partial(dispatch.run_on_workers, launcher, SOURCE)
    return worklist, worklist.follow(cells, run, runs_dir / "sweeps" / "s")


def test_limit_of_failures_reaches_the_workers(tmp_path, cells, monkeypatch):
    started = []

    def fail(job):
        started.append(job.fingerprint)
        raise ValueError("no")

    monkeypatch.setattr(worker, "run_plan", fail)
    source = ConfigSource("", "config", (), str(tmp_path))
    worklist = Worklist(tmp_path, 1)
    run = partial(dispatch.run_on_workers, FakeLauncher(worker.run_job), source)
    outcomes = list(worklist.follow(cells, run, tmp_path / "sweeps" / "s"))
    assert worklist.over
    assert [outcome.message for outcome in outcomes] == ["ValueError: no"] * 2
    assert len(started) == 2  # the jobs after them found the file that stops them


def test_limit_of_failures_ends_runs_in_this_process(tmp_path, cells):
    worklist = Worklist(tmp_path, 0)
    run = partial(dispatch.run_here, lambda cell: Outcome(cell.plan.fingerprint, Status.failed, "no"))
    assert len(list(worklist.follow(cells, run, tmp_path))) == 1


def test_outcome_of_a_worker_gets_the_record_that_it_left(tmp_path, cells):
    by_fingerprint = {cell.plan.fingerprint: cell for cell in cells}

    def answer(job):
        finish_record(by_fingerprint[job.fingerprint])
        return Outcome(job.fingerprint, Status.finished, made_by="finished by process 1 on node7")

    worklist, outcomes = on_workers(FakeLauncher(answer), cells[:1], tmp_path)
    [outcome] = outcomes
    assert outcome.record["fingerprint"] == cells[0].plan.fingerprint
    assert worklist.made_by == {cells[0].plan.fingerprint: "finished by process 1 on node7"}


def test_record_of_a_worker_that_died_is_marked_interrupted(tmp_path, cells):
    def answer(job):
        record = started(cells[0], host="node7", pid=4711)
        store.write_record(tmp_path, record)
        worker.owner_file(job).parent.mkdir(parents=True)
        worker.owner_file(job).write_text(json.dumps(record.owner))
        return Outcome(job.fingerprint, Status.died, "node7 is gone")

    _, outcomes = on_workers(FakeLauncher(answer), cells[:1], tmp_path)
    assert [outcome.status for outcome in outcomes] == [Status.died]
    record = cells[0].read_record()
    assert (record["status"], record["error"]["message"]) == ("interrupted", "node7 is gone")


def test_workers_are_ended_when_the_command_is_stopped(tmp_path, cells):
    def answer(job):
        raise KeyboardInterrupt

    launcher = FakeLauncher(answer)
    _, outcomes = on_workers(launcher, cells, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)
    assert launcher.closed


def test_job_holds_the_cell_as_text(tmp_path, cells):
    job = dispatch.job_of(cells[0], SOURCE, tmp_path, tmp_path / "stop")
    assert (job.fingerprint, job.overrides, job.attempts) == (cells[0].plan.fingerprint, ("lora.r=1",), 0)
    assert (job.code, job.stop) == (provenance.code_version(), str(tmp_path / "stop"))
    assert job.model == dispatch.job_of(cells[1], SOURCE, tmp_path, tmp_path / "stop").model
