"""The state of a sweep's runs, read from their files while they run."""

import json
from dataclasses import replace

import pytest

from harness.errors import ConfigFault, Paused, RunFault
from harness.record import locks, progress, store
from harness.stages.sweep_view import find_sweep, view_sweep
from harness.sweep import manifest
from tests.support.stored_records import fail, finish, started
from tests.support.sweeps import finish_record, make_cell

DEAD = {"pid": 2**22 - 1, "pid_started": 1.0}


@pytest.fixture
def grid(tmp_path, weightless):
    """Cells of lora.r=1 to 5."""
    return [make_cell(tmp_path, weightless, "seed=0", f"lora.r={r}", sweep_name="mine") for r in range(1, 6)]


def states(tmp_path, folder):
    return [run.state for run in view_sweep(tmp_path, folder).runs]


def test_each_run_is_shown_as_it_is(grid, tmp_path):
    folder = manifest.keep_manifest(grid)
    finished, failed, killed, running, _ = grid
    finish(tmp_path, started(finished))
    fail(tmp_path, started(failed), RunFault("no"))
    store.write_record(tmp_path, started(killed, **DEAD))
    with manifest.recorded_command(folder), locks.take_lock(running.folder):
        assert states(tmp_path, folder) == ["finished", "failed", "interrupted", "starting", "waiting"]
        started(running)
        writer = progress.ProgressWriter(running.folder)
        writer.enter("training")
        writer.begin(0, 40)
        writer.step(10, 1.25, 500.0)
        row = view_sweep(tmp_path, folder).runs[3]
        assert (row.state, row.name) == ("running", "lora.r=4")  # what all cells share is left out
        assert (row.progress.state, row.progress.step, row.progress.steps, row.progress.loss) == (
            "training",
            10,
            40,
            1.25,
        )
        assert row.progress.left_s >= 0
    # Nobody works on it any more: the record that says running belongs to a lock that was let go.
    assert states(tmp_path, folder) == ["finished", "failed", "interrupted", "interrupted", "not started"]


def test_a_run_that_stopped_early_is_finished_and_not_pruned(grid, tmp_path):
    folder = manifest.keep_manifest(grid[:1])
    record = started(grid[0])
    record.training.stopped_early = {"step": 30, "steps": 90}
    finish(tmp_path, record)
    [row] = view_sweep(tmp_path, folder).runs
    assert (row.state, row.stopped_at) == ("finished", (30, 90))


def test_progress_of_an_earlier_owner_is_not_shown(grid, tmp_path):
    cell = grid[0]
    folder = manifest.keep_manifest([cell])
    started(cell)
    progress.ProgressWriter(cell.folder).enter("training")
    file = cell.folder / progress.NAME
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"owner": told["owner"] | DEAD}))
    with locks.take_lock(cell.folder):
        [row] = view_sweep(tmp_path, folder).runs
    assert (row.state, row.progress) == ("running", None)


def test_single_run_is_shown_without_a_sweep_and_below_one(grid, tmp_path):
    single, *others = grid
    started(single)
    progress.ProgressWriter(single.folder).enter("training")
    with locks.take_lock(single.folder):
        assert find_sweep(tmp_path, None) is None
        view = view_sweep(tmp_path, None)
        assert [(row.name, row.fingerprint, row.state) for row in view.runs] == [
            ("lora", single.plan.fingerprint, "running")
        ]
        assert view.under_way
        folder = manifest.keep_manifest(others)
        assert states(tmp_path, folder) == ["not started"] * 4 + ["running"]
        assert states(tmp_path, manifest.keep_manifest(grid)) == ["running"] + ["not started"] * 4  # once
    finish(tmp_path, started(single))
    assert states(tmp_path, folder) == ["not started"] * 4


def test_killed_single_run_is_shown_with_where_it_was(grid, tmp_path):
    single = grid[0]
    store.write_record(tmp_path, started(single, **DEAD))
    writer = progress.ProgressWriter(single.folder)
    writer.enter("training")
    writer.begin(0, 40)
    file = single.folder / progress.NAME
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"owner": single.read_record()["owner"], "step": 12}))
    assert find_sweep(tmp_path, None) is None
    view = view_sweep(tmp_path, None)
    [row] = view.runs
    assert (row.state, row.progress.step, row.progress.steps) == ("interrupted", 12, 40)
    assert not view.under_way
    assert states(tmp_path, manifest.keep_manifest(grid[1:]))[-1] == "interrupted"


def test_sweep_is_found_by_name_by_folder_and_newest_first(grid, tmp_path):
    with pytest.raises(ConfigFault, match="holds no sweep, and no run is running"):
        find_sweep(tmp_path, None)
    first = manifest.keep_manifest(
        [replace(each, options=replace(each.options, sweep_name="first")) for each in grid[:2]]
    )
    second = manifest.keep_manifest(grid)
    with manifest.recorded_command(first):
        assert find_sweep(tmp_path, None) == first
    assert find_sweep(tmp_path, "mine") == second
    assert find_sweep(tmp_path, second.name[:6]) == second
    with pytest.raises(ConfigFault, match=r"sweep\.name=none is not a sweep in .*first"):
        find_sweep(tmp_path, "none")


def test_finished_run_of_other_code_than_the_sweeps_last_command_is_marked(grid, tmp_path):
    folder = manifest.keep_manifest(grid[:2])
    with manifest.recorded_command(folder):
        finish_record(grid[0], code="0123456789abcdef")
        finish_record(grid[1])
    assert [run.other_code for run in view_sweep(tmp_path, folder).runs] == [True, False]


def test_runs_of_a_race_wait_for_a_verdict_or_have_lost(grid, tmp_path):
    folder = manifest.keep_manifest(grid)
    waiting, lost = grid[:2]
    fail(tmp_path, started(waiting), Paused("paused after optimizer step 1 of 8"))
    fail(tmp_path, started(lost), Paused("paused after optimizer step 1 of 8"))
    record = store.read_record(tmp_path, lost.plan.fingerprint)
    store.write_record(tmp_path, record | {"status": "pruned", "error": None, "pruned": {}})
    with manifest.recorded_command(folder):
        assert states(tmp_path, folder) == ["paused", "pruned", "waiting", "waiting", "waiting"]
        assert view_sweep(tmp_path, folder).under_way
    assert states(tmp_path, folder) == ["interrupted", "pruned", "not started", "not started", "not started"]
