"""Outcomes: of errors, and as plain values."""

import pytest

from harness.errors import HeldByAnotherProcess, RunFault
from harness.sweep.outcome import Outcome, Status, outcome_of_error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (HeldByAnotherProcess("process 1 on n1 is running abc"), Status.held, "process 1 on n1 is running abc"),
        (RunFault("no memory\nmore"), Status.failed, "no memory"),
        (ValueError("odd"), Status.failed, "ValueError: odd"),
    ],
)
def test_error_becomes_an_outcome_with_one_line(error, status, message):
    outcome = outcome_of_error("f1", error, 2.0)
    assert (outcome.status, outcome.message, outcome.seconds) == (status, message, 2.0)
    assert outcome.failed == (status is Status.failed)


def test_death_of_a_worker_is_a_failure():
    assert Outcome("f1", Status.died).failed


def test_outcome_travels_as_plain_values():
    outcome = Outcome("f1", Status.finished, "remark", 1.5, "finished by process 1 on n1")
    assert outcome.to_plain()["status"] == "finished"
    assert Outcome.from_plain(outcome.to_plain()) == outcome
