"""What a command shows when its runs have ended, and when that is an error."""

import csv
import logging

import pytest

from harness.errors import RunFault
from harness.sweep.outcome import Outcome, Status
from harness.sweep.summary import conclude
from harness.sweep.worklist import Worklist
from tests.support.stored_records import fail, started
from tests.support.sweeps import finish_record, make_cell


@pytest.fixture
def cells(tmp_path, weightless):
    return [make_cell(tmp_path, weightless, f"lora.r={r}") for r in (1, 2, 3)]


def outcomes_of(cells, *statuses):
    return {
        cell.plan.fingerprint: Outcome(cell.plan.fingerprint, status)
        for cell, status in zip(cells, statuses, strict=False)
    }


def rows_of(folder):
    with (folder / "runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_results_are_shown_with_their_origin(cells, tmp_path, capsys):
    finish_record(cells[0])
    finish_record(cells[1], code="0123456789abcdef")
    finish_record(cells[2])
    worklist = Worklist(tmp_path, None)
    worklist.made_by[cells[2].plan.fingerprint] = "finished by process 1 on node7"
    reused = frozenset(cell.plan.fingerprint for cell in cells[1:])
    conclude(cells, outcomes_of(cells, *[Status.finished] * 3), reused, tmp_path / "s", worklist)
    shown = capsys.readouterr().out
    assert "row 2: made by code 0123456789abcdef" in shown
    assert "row 3: finished by process 1 on node7" in shown
    assert "reused" in shown
    assert [row["code"] == "0123456789abcdef" for row in rows_of(tmp_path / "s")] == [False, True, False]


def test_the_report_is_written_before_anything_is_printed(cells, tmp_path, monkeypatch):
    finish_record(cells[0])

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("harness.report.console.to_console", broken)
    with pytest.raises(OSError, match="Input/output"):
        conclude(cells[:1], outcomes_of(cells, Status.finished), frozenset(), tmp_path / "s", Worklist(tmp_path, None))
    assert [row["state"] for row in rows_of(tmp_path / "s")] == ["finished"]
    assert (tmp_path / "s" / "report.html").exists()


def test_failures_are_an_error_after_the_table(cells, tmp_path):
    finish_record(cells[0])
    fail(tmp_path, started(cells[1]), RunFault("no memory"))
    outcomes = outcomes_of(cells[:2], Status.finished, Status.failed)
    with pytest.raises(RunFault, match="1 of 2 runs failed; their records hold the tracebacks"):
        conclude(cells[:2], outcomes, frozenset(), tmp_path / "s", Worklist(tmp_path, None))
    assert [row["state"] for row in rows_of(tmp_path / "s")] == ["finished", "failed"]


def test_plans_that_were_not_started_are_counted(cells, tmp_path):
    fail(tmp_path, started(cells[0]), RunFault("no"))
    worklist = Worklist(tmp_path, 0)
    worklist.failed = 1
    worklist.not_started = {cell.plan.fingerprint for cell in cells[1:]}
    with pytest.raises(RunFault, match=r"more runs failed \(1\) than sweep\.max_failures=0: 2 were not started"):
        conclude(cells, outcomes_of(cells, Status.failed), frozenset(), tmp_path / "s", worklist)
    assert [row["state"] for row in rows_of(tmp_path / "s")] == ["failed", "not started", "not started"]


def test_a_report_that_cannot_be_written_hides_no_result(cells, tmp_path, monkeypatch, capsys, caplog):
    finish_record(cells[0])

    def broken(*_, **__):
        raise ValueError("no such form")

    monkeypatch.setattr("harness.sweep.summary.write_report", broken)
    logging.getLogger("harness").propagate = True
    conclude(cells[:1], outcomes_of(cells, Status.finished), frozenset(), tmp_path / "s", Worklist(tmp_path, None))
    assert "lora" in capsys.readouterr().out
    assert "the report could not be written (ValueError: no such form)" in caplog.text
    assert f"stage=report report.sweep={tmp_path / 's'}" in caplog.text


def test_what_is_left_when_the_time_is_over_is_counted_and_resumed_by_the_same_command(cells, tmp_path):
    finish_record(cells[0])
    fail(tmp_path, started(cells[1]), KeyboardInterrupt())
    worklist = Worklist(tmp_path, None, max_hours=1e-9)
    worklist.not_started = {cells[2].plan.fingerprint}
    with pytest.raises(RunFault, match=r"sweep.max_hours=1e-09 reached: 2 of 3 runs are left \(.*\); run the same"):
        conclude(cells, outcomes_of(cells, Status.finished), frozenset(), tmp_path / "s", worklist)
    assert [row["state"] for row in rows_of(tmp_path / "s")] == ["finished", "interrupted", "not started"]


def test_a_sweep_that_ends_with_its_time_is_complete(cells, tmp_path):
    finish_record(cells[0])
    worklist = Worklist(tmp_path, None, max_hours=1e-9)
    conclude(cells[:1], outcomes_of(cells, Status.finished), frozenset(), tmp_path / "s", worklist)
