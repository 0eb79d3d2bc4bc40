"""One row per cell of the grid: shared runs are marked, and half a run has no figures."""

import subprocess
import sys

import pytest

from harness.record import provenance
from harness.record.readings import validation_loss
from harness.report.cells import TableCell, cells_from_records
from harness.report.table import build_table, outcome_line
from tests.support.growth import calls
from tests.support.records import a_record, grid, six
from tests.support.tables import parsed, printed


def test_six_cells_of_four_runs_are_six_rows_with_the_sharing_marked():
    table = six()
    assert [row["shares_row"] for row in table.rows] == [None, None, None, None, 4, 4]
    assert [row["setting"] for row in table.rows] == ["r=4", "r=8", "r=16", "(lora.r=4)", "(lora.r=8)", "(lora.r=16)"]
    text = printed(table, 140)
    assert "5 = 4" in text
    assert "6 = 4" in text
    assert "not a replicate" in text
    assert [row["shares_row"] for row in parsed(table)] == ["", "", "", "", "4", "4"]
    assert outcome_line(table) == "6 cells, 4 runs: 4 finished"


def test_failed_interrupted_and_missing_cells_stay_in_grid_order_and_say_why():
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16", "peft=ia3")
    error = {"type": "MemoryError", "message": "CUDA out of memory\nsecond line", "hint": "lower it", "traceback": "x"}
    killed = {"type": "Interrupted", "message": "process 7 ended", "hint": "", "traceback": ""}
    records = {
        cells[0].fingerprint: a_record("a", status="failed", error=error),
        cells[1].fingerprint: a_record("b", status="interrupted", error=killed),
        cells[3].fingerprint: a_record("d", "ia3"),
    }
    table = build_table(cells, records)
    assert [row["state"] for row in table.rows] == ["failed", "interrupted", "not run", "finished"]
    text = printed(table, 140)
    assert "row 1 failed: CUDA out of memory - lower it" in text
    assert "second line" not in text
    assert "row 2 interrupted: process 7 ended" in text
    assert "not run" in text
    assert outcome_line(table) == "4 cells, 4 runs: 1 failed, 1 interrupted, 1 not run, 1 finished"
    assert parsed(table)[0]["error"] == "CUDA out of memory\nsecond line"


def test_half_a_run_has_no_figures():
    table = build_table([TableCell("", "a", "lora", "")], {"a": a_record("a", status="failed")})
    (row,) = table.rows
    assert row["trainable_parameters"] == 1_234_567
    assert row["rouge_l"] is row["train_s"] is row["validation_loss"] is row["peak_train_bytes"] is None


def test_validation_loss_is_that_of_the_weights_that_were_kept():
    points = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}]
    assert validation_loss({"training": {"validation": points, "best_step": 2}}) == 1.0
    assert validation_loss({"training": {"validation": points, "best_step": None}}) == 2.0
    assert validation_loss({"training": {}}) is None


def test_a_table_without_cells_is_empty():
    table = build_table([], {})
    assert table.rows == []
    assert printed(table, 80)


def tabulate(rows: int) -> None:
    records = {f"f{n}": a_record(f"f{n}") for n in range(rows)}
    table = build_table(cells_from_records(list(records.values())), records)
    printed(table, 100)


@pytest.mark.slow
def test_the_work_of_a_table_grows_with_its_rows_and_no_faster():
    tabulate(10)  # what is imported or cached once
    assert calls(lambda: tabulate(1600)) < 5 * calls(lambda: tabulate(400))


def test_report_needs_no_torch():
    modules = "harness.report.build, harness.report.write, harness.report.console"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    root = provenance.PACKAGE.parent
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_method_of_the_library_is_named_by_its_type():
    [cell] = grid("peft=library library.type=lily")
    made = a_record(cell.fingerprint, "library", plan={"settings": {"type": "lily"}})
    assert build_table([cell], {cell.fingerprint: made}).rows[0]["method"] == "library:lily"
    assert build_table([cell], {}).rows[0]["method"] == "library"


PRUNED = {
    "evaluation": 1, "of": 8, "step": 10, "steps": 80, "loss": 2.5, "limit": 2.0, "rank": 3, "compared": 4, "kept": 2,
    "rule": {"keep": 0.5, "first": 0.125, "margin": 0.0},
}  # fmt: skip


def test_a_pruned_run_has_no_figures_and_says_what_it_lost_to():
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8")
    records = {
        cells[0].fingerprint: a_record("a", status="pruned", pruned=PRUNED, scores={"before": {}, "after": {}}),
        cells[1].fingerprint: a_record("b"),
    }
    table = build_table(cells, records)
    assert [row["state"] for row in table.rows] == ["pruned", "finished"]
    assert table.rows[0]["validation_loss"] is None
    assert table.rows[0]["train_s"] is None
    text = printed(table, 160)
    assert "row 1 pruned: validation loss 2.5 at evaluation 1 of 8, rank 3; 2 of 4 configurations continued" in text
    assert "pruned rows lost to others of their method on validation loss (sweep.prune)" in text
    assert outcome_line(table) == "2 cells, 2 runs: 1 pruned, 1 finished"
