"""Checks that any setting can need, and the hints for errors of libraries."""

import errno

import pytest

from harness import errors
from harness.errors import ConfigFault, DataFault, RunFault, brief, hint_for, raise_together


def test_long_values_are_shown_in_part():
    assert len(brief("x" * 10_000)) < 250
    assert brief("short") == "short"


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (errors.at_least("a", 0, 1), "a=0 is too small; use at least 1"),
        (errors.at_least("a", float("nan"), 1), "a=nan is too small; use at least 1"),
        (errors.above("a", 0.0, 0), "a=0.0 must be a finite number above 0"),
        (errors.above("a", float("inf"), 0), "a=inf must be a finite number above 0"),
        (errors.fraction("a", 1.0), "a=1.0 must be at least 0 and below 1"),
        (errors.fraction("a", 1.5, closed=True), "a=1.5 must be at least 0 and at most 1"),
        (errors.one_of("a", 1, (True, "x")), "a=1 is unknown; choose one of true, x"),
    ],
)
def test_check_names_key_value_and_remedy(faults, message):
    assert list(faults) == [message]


@pytest.mark.parametrize(
    "faults",
    [
        errors.at_least("a", 1, 1),
        errors.at_least("a", None, 1),
        errors.above("a", 0.1, 0),
        errors.above("a", None, 0),
        errors.fraction("a", 0.0),
        errors.fraction("a", 1.0, closed=True),
        errors.one_of("a", True, (True, "x")),
    ],
)
def test_check_accepts_what_is_allowed(faults):
    assert list(faults) == []


def test_faults_are_raised_together():
    raise_together([])
    with pytest.raises(ConfigFault, match=r"^a\nb$"):
        raise_together(["a", "b"])
    with pytest.raises(DataFault):
        raise_together(["a"], DataFault)


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, which errors never imports."""


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "trainer.batch_size"),
        (MemoryError(), "trainer.batch_size"),
        (RunFault("step 12, batch 3: loss is nan"), "trainer.learning_rate"),
        (FloatingPointError("non-finite loss at step 3"), "trainer.learning_rate"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "permissions"),
        (OSError("We couldn't connect to 'https://hub.example' to load the files"), "model.source"),
        (ConnectionError("Max retries exceeded"), "model.source"),
        (KeyboardInterrupt(), "same command"),
        (ValueError("lora.r=0"), ""),
    ],
)
def test_hints_name_the_remedy(error, hint):
    found = hint_for(error)
    assert hint in found
    assert bool(hint) == bool(found)


def test_the_hint_looks_at_the_cause():
    error = ValueError("wrapped")
    error.__cause__ = MemoryError()
    assert "trainer.batch_size" in hint_for(error)
