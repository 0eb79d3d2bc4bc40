"""A record while it is filled in: what is not measured yet has no key; it ends finished, failed or interrupted."""

import pytest

from harness.errors import RunFault
from harness.record.run_record import Code, Memory, RunRecord, Training


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(
        fingerprint="a1",
        method="lora",
        attempt=1,
        created="2026-01-01T00:00:00.000+00:00",
        started="2026-01-01T00:00:00.000+00:00",
        plan={"seed": 1},
        code=Code("0" * 16, "1.0", None, None),
        versions={},
        device={},
        owner={},
        seeds={},
    )


def test_what_is_not_measured_yet_has_no_key_and_what_cannot_be_measured_is_none(record):
    assert (record.as_dict()["times_s"], record.as_dict()["memory_bytes"], record.as_dict()["training"]) == ({}, {}, {})
    record.times_s.load = 1.5
    record.memory_bytes = Memory(train_peak=None, kind=None)
    values = record.as_dict()
    assert values["times_s"] == {"load": 1.5}
    assert values["memory_bytes"] == {"train_peak": None, "kind": None}


def test_a_methods_own_figures_are_beside_those_of_training(record):
    record.training = Training(optimizer_steps=2, figures={"nonzeros": 7})
    assert record.as_dict()["training"] == {"optimizer_steps": 2, "nonzeros": 7}


def test_the_end_of_a_run_follows_from_its_error(record):
    record.mark_failed(ValueError("x"))
    assert (record.status, bool(record.finished)) == ("failed", True)
    record.mark_failed(KeyboardInterrupt())
    assert (record.status, record.error.message) == ("interrupted", "KeyboardInterrupt")
    record.mark_finished()
    assert (record.status, record.error) == ("finished", None)


def test_a_failure_keeps_type_message_hint_and_traceback(record):
    try:
        raise RunFault("step 12, batch 3: loss is nan")
    except RunFault as error:
        record.mark_failed(error)
    failure = record.as_dict()["error"]
    assert (failure["type"], failure["message"]) == ("RunFault", "step 12, batch 3: loss is nan")
    assert "trainer.learning_rate" in failure["hint"]
    assert "test_run_record.py" in failure["traceback"]
