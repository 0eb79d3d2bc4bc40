"""stage=status: what the view prints, and when watching ends."""

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.record.progress import Progress
from harness.stages import status
from harness.stages.sweep_view import RunView, SweepView
from harness.sweep import manifest
from tests.support.paths import ROOT
from tests.support.sweeps import make_cell


@pytest.fixture
def grid(tmp_path, weightless):
    """Cells of lora.r=1 to 5."""
    return [make_cell(tmp_path, weightless, "seed=0", f"lora.r={r}", sweep_name="mine") for r in range(1, 6)]


@pytest.mark.slow
def test_command_prints_the_view_once_without_torch(grid, tmp_path, weightless):
    manifest.keep_manifest(grid)
    code = (
        "import sys; from harness.__main__ import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    words = ["stage=status", f"runs_dir={tmp_path}", f"model.path={weightless}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
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


def test_if_rows_do_not_fit_running_ones_are_shown_and_all_are_counted():
    rows = [RunView(f"lora.r={number}", f"f{number}", "finished") for number in range(30)]
    view = SweepView("mine", [*rows, RunView("lora.r=99", "f99", "running")])
    table = status.render(view, room=5)
    assert table.row_count == 5
    assert next(iter(table.columns[0].cells)).plain == "f99"
    assert table.caption.plain == "31 runs: 30 finished, 1 running; 26 of them do not fit here"


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_terminals_break_no_word_and_name_what_they_leave_out(width):
    now = Progress("training", 120, 300, 0.4123, 9812.0, 62.0, 0.0, {})
    rows = [RunView("lora.target_modules=all-linear seed=1", "0123456789ab", "running", "a-node-with-a-name", now)] * 2
    console = Console(width=width, file=io.StringIO())
    console.print(status.render(SweepView("mine", rows), width=width))
    shown = console.file.getvalue()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert all(
        word in shown for word in ("0123456789ab", "running: training", "120/300", "lora.target_modules=all-linear")
    )
    assert ("a-node-with-a-name" in shown) == ("host" not in shown.partition("not shown at this width:")[2])


def test_a_run_that_stopped_early_is_finished_and_shows_its_steps():
    table = status.render(SweepView("mine", [RunView("lora.r=1", "f1", "finished", stopped_at=(30, 90))]))
    assert [next(iter(column.cells)).plain for column in table.columns][1:3] == ["finished (stopped early)", "30/90"]
    assert table.caption.plain == "1 run: 1 finished"


def test_run_of_other_code_is_marked():
    table = status.render(SweepView("mine", [RunView("lora.r=1", "f1", "finished", other_code=True)]))
    assert next(iter(table.columns[1].cells)).plain == "finished (other code)"
    assert table.caption.plain == "1 run: 1 finished (1 by other code)"
