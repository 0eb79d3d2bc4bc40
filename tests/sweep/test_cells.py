"""Cells: their names, and what is on record of them."""

import pytest

from harness.record import locks, store
from harness.sweep.cells import effective_overrides
from tests.support.stored_records import started
from tests.support.sweeps import make_cell


def test_name_of_a_cell_leaves_out_what_does_not_change_a_result(tmp_path, weightless):
    cell = make_cell(tmp_path, weightless, "lora.r=8")
    assert cell.name == "lora.r=8"
    assert effective_overrides(
        ["seed=1", "runs_dir=x", "sweep.retry=none", "+tracker.tags=[a]", "hydra/launcher=ray"]
    ) == ["seed=1"]


@pytest.mark.parametrize("option", ["sweep.reuse=any", "rerun=true", "trainer.threads=2", "sweep.max_failures=1"])
def test_options_change_no_fingerprint(tmp_path, weightless, option):
    plain, other = (make_cell(tmp_path, weightless, *words) for words in (("lora.r=8",), ("lora.r=8", option)))
    assert plain.plan.fingerprint == other.plan.fingerprint
    assert plain.name == other.name


def test_attempts_on_record_are_counted(tmp_path, weightless):
    cell = make_cell(tmp_path, weightless, "lora.r=8")
    assert cell.with_attempts().attempts == 0
    started(cell)
    started(cell)
    assert cell.with_attempts().attempts == 2


def test_folder_that_holds_only_a_lock_has_no_record(tmp_path, weightless):
    cell = make_cell(tmp_path, weightless, "lora.r=8")
    with locks.take_lock(cell.folder):
        assert cell.read_record() is None
        assert store.all_records(tmp_path) == []
