"""A command over a few small rows, and its record."""

import pytest

from tests.support.runs import command, overrides, records_of


@pytest.fixture
def run(random_qwen2, rows, tmp_path):
    """Runs a command over the small rows; returns its outcome and its one record."""

    def go(*words):
        done = command(*overrides(random_qwen2, rows, tmp_path / "runs"), *words)
        found = list(records_of(tmp_path / "runs").values())
        return done, found[-1] if found else None

    return go
