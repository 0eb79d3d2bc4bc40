"""What is told of a sweep while it runs: the estimate before it, progress of a run, the view from elsewhere."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.errors import ConfigFault, RunFault
from harness.record import locks, progress, store
from harness.stages import status
from harness.sweep import manifest
from harness.sweep.cells import Cell
from tests.support.configs import CONF
from tests.support.runs import plan_of
from tests.support.stored_records import fail, finish, started


@pytest.fixture
def grid(tmp_path, weightless):
    """Cells of lora.r=1 to 5."""
    made = []
    for r in range(1, 6):
        plan, options = plan_of(f"model.path={weightless}", f"lora.r={r}")
        made.append(Cell(("seed=0", f"lora.r={r}"), plan, replace(options, runs_dir=tmp_path, sweep_name="mine")))
    return made


DEAD = {"pid": 2**22 - 1, "pid_started": 1.0}


def states(tmp_path, folder):
    return [row.state for row in status.look(tmp_path, folder).rows]


# --- the view ---------------------------------------------------------------------------------------------


def test_each_run_is_shown_as_it_is(grid, tmp_path):
    folder = manifest.keep_manifest(grid)
    finished, failed, killed, running, _ = grid
    finish(tmp_path, started(finished))
    fail(tmp_path, started(failed), RunFault("no"))
    store.write_record(tmp_path, started(killed, **DEAD))
    with manifest.recorded_command(folder), locks.take_lock(running.folder):
        assert states(tmp_path, folder) == ["finished", "failed", "interrupted", "starting", "waiting"]
        started(running)
        beacon = progress.ProgressWriter(running.folder)
        beacon.enter("training")
        beacon.begin(0, 40)
        beacon.step(10, 1.25, 500.0)
        row = status.look(tmp_path, folder).rows[3]
        assert (row.state, row.name) == ("running", "lora.r=4")  # what all cells share is left out
        assert (row.told.state, row.told.step, row.told.steps, row.told.loss) == ("training", 10, 40, 1.25)
        assert row.told.left_s >= 0
    # Nobody works on it any more: the record that says running belongs to a lock that was let go.
    assert states(tmp_path, folder) == ["finished", "failed", "interrupted", "interrupted", "not started"]


def test_progress_of_an_earlier_owner_is_not_shown(grid, tmp_path):
    cell = grid[0]
    folder = manifest.keep_manifest([cell])
    started(cell)
    beacon = progress.ProgressWriter(cell.folder)
    beacon._owner = beacon._owner | DEAD
    beacon.enter("training")
    with locks.take_lock(cell.folder):
        [row] = status.look(tmp_path, folder).rows
    assert (row.state, row.told) == ("running", None)


def test_single_run_is_shown_without_a_sweep_and_below_one(grid, tmp_path):
    single, *others = grid
    started(single)
    progress.ProgressWriter(single.folder).enter("training")
    with locks.take_lock(single.folder):
        assert status.find(tmp_path, None) is None
        view = status.look(tmp_path, None)
        assert [(row.name, row.fingerprint, row.state) for row in view.rows] == [
            ("lora", single.plan.fingerprint, "running")
        ]
        assert view.under_way
        folder = manifest.keep_manifest(others)
        assert states(tmp_path, folder) == ["not started"] * 4 + ["running"]
        assert states(tmp_path, manifest.keep_manifest(grid)) == ["running"] + ["not started"] * 4  # once
    finish(tmp_path, started(single))
    assert states(tmp_path, folder) == ["not started"] * 4


def test_command_prints_the_view_once_without_torch(grid, tmp_path, weightless):
    manifest.keep_manifest(grid)
    code = (
        "import sys; from harness.__main__ import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    words = ["stage=status", f"runs_dir={tmp_path}", f"model.path={weightless}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=CONF.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "False"
    assert "5 runs: 5 not started" in done.stdout
    assert "mine" in lines[0]


def test_watching_ends_with_the_sweep_and_by_ctrl_c(grid, tmp_path, monkeypatch, capsys):
    folder = manifest.keep_manifest(grid)
    status.show_status(tmp_path, None, watch=True)
    assert "5 not started" in capsys.readouterr().out
    slept = []

    def stop(seconds):
        slept.append(seconds)
        raise KeyboardInterrupt

    # Not time.sleep itself: other threads of the tests' process use it.
    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=stop))
    with manifest.recorded_command(folder):
        status.show_status(tmp_path, None, watch=True)
    assert len(slept) == 1


def test_where_room_is_short_the_liveliest_rows_are_shown_and_all_are_counted():
    rows = [status.StatusRow(f"lora.r={number}", f"f{number}", "finished") for number in range(30)]
    view = status.View("mine", [*rows, status.StatusRow("lora.r=99", "f99", "running")])
    table = status.render(view, room=5)
    assert table.row_count == 5
    assert next(iter(table.columns[0].cells)).plain == "f99"
    assert table.caption.plain == "31 runs: 30 finished, 1 running; 26 of them have no room here"


def test_sweep_is_found_by_name_by_folder_and_newest_first(grid, tmp_path):
    with pytest.raises(ConfigFault, match="holds no sweep and no run under way"):
        status.find(tmp_path, None)
    first = manifest.keep_manifest(
        [replace(each, options=replace(each.options, sweep_name="first")) for each in grid[:2]]
    )
    second = manifest.keep_manifest(grid)
    with manifest.recorded_command(first):
        assert status.find(tmp_path, None) == first
    assert status.find(tmp_path, "mine") == second
    assert status.find(tmp_path, second.name[:6]) == second
    with pytest.raises(ConfigFault, match=r"sweep\.name=none is no sweep .*first"):
        status.find(tmp_path, "none")


# --- what a run tells -------------------------------------------------------------------------------------


def test_progress_is_whole_rare_and_gone_at_the_end(tmp_path):
    beacon = progress.ProgressWriter(tmp_path)
    beacon.begin(5, 25)
    assert not beacon.due()
    beacon.step(15, float("nan"), 10.0)
    told = progress.read_progress(tmp_path)
    assert (told.step, told.steps, told.loss) == (15, 25, None)
    assert [path.name for path in tmp_path.iterdir()] == [progress.NAME]
    beacon.end()
    beacon.end()
    assert progress.read_progress(tmp_path) is None


def test_of_several_processes_the_first_alone_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.distributed, "is_main_process", lambda: False)
    progress.ProgressWriter(tmp_path).enter("training")
    assert list(tmp_path.iterdir()) == []


def test_progress_that_cannot_be_written_or_read_disturbs_nobody(tmp_path):
    progress.ProgressWriter(tmp_path / "none").enter("loading")
    (tmp_path / progress.NAME).write_text('{"state": "tr')
    assert progress.read_progress(tmp_path) is None


# --- the list ---------------------------------------------------------------------------------------------


def test_list_keeps_plans_and_commands_and_no_secret(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "hunter2-hunter2")
    monkeypatch.setattr(sys, "argv", ["harness", "-m", "lora.r=1,2", "tracker.project=hunter2-hunter2"])
    folder = manifest.keep_manifest(grid)
    with pytest.raises(RunFault), manifest.recorded_command(folder):
        raise RunFault("stopped")
    content = json.loads((folder / manifest.MANIFEST_NAME).read_text())
    assert content["name"] == "mine"
    assert [cell["fingerprint"] for cell in content["cells"]] == [cell.plan.fingerprint for cell in grid]
    assert content["cells"][1]["overrides"] == ["seed=0", "lora.r=2"]
    [command] = [json.loads(file.read_text()) for file in (folder / "commands").iterdir()]
    assert command["command"] == "python -m harness -m lora.r=1,2 tracker.project=<MY_API_KEY>"
    assert {"started", "ended", "owner", "code", "arguments", "folder"} <= command.keys()
    assert command["outcome"] == "RunFault: stopped"
