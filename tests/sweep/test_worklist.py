"""A command's progress through its plans: others' results, plans that others hold, the limit of failures, the time."""

import time
from pathlib import Path

import pytest

from harness.errors import RunFault
from harness.sweep import worklist as module
from harness.sweep.outcome import Outcome, Status
from harness.sweep.worklist import Worklist
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record, make_cell


@pytest.fixture
def cells(tmp_path, weightless):
    return [make_cell(tmp_path, weightless, f"lora.r={r}", attempts=0) for r in (1, 2, 3)]


def dispatch_with(outcome_of):
    return lambda cells, folder, worklist: (outcome_of(cell) for cell in cells)


def finished(cell):
    return Outcome(cell.plan.fingerprint, Status.finished)


def test_result_of_another_process_is_taken_and_named(cells, tmp_path):
    finish_record(cells[0])
    fail(tmp_path, started(cells[1]), RunFault("no memory"))
    worklist, ran = Worklist(tmp_path, None), []

    def outcome_of(cell):
        ran.append(cell)
        return finished(cell)

    outcomes = list(worklist.follow(cells, dispatch_with(outcome_of), tmp_path))
    assert [outcome.status for outcome in outcomes] == [Status.finished, Status.failed, Status.finished]
    assert outcomes[1].message.endswith("no memory")
    assert ran == cells[2:]
    assert worklist.made_by.keys() == {cell.plan.fingerprint for cell in cells[:2]}
    assert (worklist.ended, worklist.failed) == (3, 1)


def test_plan_that_another_process_runs_is_postponed_then_run(cells, tmp_path, monkeypatch):
    asked = []

    def outcome_of(cell):
        asked.append(cell)
        held = cell is cells[0] and asked.count(cell) == 1
        return Outcome(cell.plan.fingerprint, Status.held if held else Status.finished)

    monkeypatch.setattr(module, "wait_for", lambda held: list(held))
    outcomes = list(Worklist(tmp_path, None).follow(cells, dispatch_with(outcome_of), tmp_path))
    assert asked == [*cells, cells[0]]
    assert [outcome.fingerprint for outcome in outcomes] == [cell.plan.fingerprint for cell in (*cells[1:], cells[0])]


def test_time_is_estimated_from_finished_runs(cells, tmp_path):
    worklist = Worklist(tmp_path, None)
    assert worklist.add(cells) == "time unknown: no comparable finished run"
    assert worklist.total == 3
    assert worklist.time_for([]) == "nothing"


def test_limit_of_failures_ends_the_list(cells, tmp_path):
    worklist = Worklist(tmp_path, 0)
    failing = dispatch_with(lambda cell: Outcome(cell.plan.fingerprint, Status.failed, "no"))
    list(worklist.follow(cells, failing, tmp_path))
    assert worklist.over


def test_the_time_of_the_command_ends_what_runs_and_starts_nothing_more(cells, tmp_path, caplog):
    worklist, ran = Worklist(tmp_path, None, max_hours=0.05 / 3600), []

    def outcome_of(cell):
        ran.append(cell)
        time.sleep(2)
        return finished(cell)

    with caplog.at_level("WARNING", logger="harness"), worklist.within_time():
        list(worklist.follow(cells, dispatch_with(outcome_of), tmp_path))
    assert ran == cells[:1]
    assert worklist.out_of_time
    assert worklist.over
    assert not worklist.failed_too_often
    assert "reached: no further run starts" in caplog.text
    with worklist.within_time():
        assert list(worklist.follow(cells, dispatch_with(outcome_of), tmp_path)) == []


def test_without_a_limit_there_is_time():
    worklist = Worklist(Path(), None)
    with worklist.within_time():
        assert not worklist.out_of_time


def test_rounds_count_from_one_again(cells, tmp_path):
    worklist = Worklist(tmp_path, None)
    worklist.add(cells)
    assert worklist.place == "1/3"
    worklist.begin_round("rung 2: ", 2)
    assert worklist.place == "rung 2: 1/2"
