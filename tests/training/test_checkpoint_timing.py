"""When a checkpoint is due: by steps, by time, and before a stop."""

import signal
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from harness.runtime import signals
from harness.training import checkpoint_timing
from harness.training.checkpoint_timing import CheckpointWhenDue

ALONE = SimpleNamespace(world_size=1)


def asks_at(callback: CheckpointWhenDue, step: int) -> bool:
    control = TrainerControl()
    callback.on_step_end(ALONE, TrainerState(global_step=step, max_steps=10), control)
    return control.should_save


def saved(callback: CheckpointWhenDue, step: int) -> None:
    """The checkpoint of this step has been written."""
    callback.on_save(ALONE, TrainerState(global_step=step, max_steps=10), TrainerControl())


def test_by_steps_but_not_at_the_end_which_has_its_own():
    callback = CheckpointWhenDue(None, 5)
    assert [step for step in range(1, 11) if asks_at(callback, step)] == [5]


def test_by_time_since_the_last_one(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint_timing.time, "monotonic", lambda: now[0])
    callback = CheckpointWhenDue(60.0, None)
    now[0] = 59.0
    assert not asks_at(callback, 1)
    now[0] = 60.0
    assert asks_at(callback, 2)
    saved(callback, 2)
    assert not asks_at(callback, 3)


def test_a_requested_stop_writes_one_and_then_ends(monkeypatch):
    callback = CheckpointWhenDue(None, None)
    assert not asks_at(callback, 1)
    saved(callback, 1)
    monkeypatch.setattr(signals, "requested", lambda: signal.SIGTERM)
    assert asks_at(callback, 2)
    with pytest.raises(signals.Interrupted):
        saved(callback, 2)
