"""Notes say what the baseline was, which process answered, and what is not comparable."""

import pytest

from harness.report.cells import TableCell
from harness.report.notes import answered_elsewhere
from harness.report.table import build_table
from tests.support.records import AFTER, BEFORE, a_record, grid, six
from tests.support.tables import printed


def test_the_shared_baseline_is_below_the_table():
    assert "baseline (the untouched base model): rouge_l 2.2" in printed(six(), 140)
    records = {"a": a_record("a"), "b": a_record("b")}
    records["b"]["scores"]["before"] = BEFORE | {"rouge_l": 9.0}
    table = build_table([TableCell("", key, "lora", "") for key in records], records)
    assert "changes are relative to each row's own baseline" in printed(table, 140)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"code": {"version": "1" * 16}}, "code"),
        ({"device": {"type": "cuda", "name": "H100"}}, "device"),
        ({"audit": {"supervised_sha256": "ff"}}, "training tokens"),
        ({"scores": {"before": BEFORE, "after": AFTER, "signatures": {"rouge_l": "v2"}}}, "signature of rouge_l"),
    ],
)
def test_differences_beyond_settings_are_named(change, note):
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16")
    records = {cell.fingerprint: a_record(cell.fingerprint) for cell in cells}
    assert "differ in" not in printed(build_table(cells, records), 140)
    records[cells[1].fingerprint] |= change
    assert f"rows 1,3 | 2 differ in {note}" in printed(build_table(cells, records), 140)


def test_answers_that_were_cut_are_counted_below_the_table():
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16")
    records = {cell.fingerprint: a_record(cell.fingerprint) for cell in cells}
    assert "cut by" not in printed(build_table(cells, records), 140)
    for cell, cut in zip(cells, (3, 3, 0), strict=True):
        records[cell.fingerprint]["scores"]["cut"] = {"before": 40, "after": cut, "of": 40, "limit": 6}
    shown = " ".join(printed(build_table(cells, records), 140).split())
    assert (
        "answers cut by scoring.generation.max_new_tokens: rows 1,2: 3 of 40 (baseline 40) at 6 tokens; "
        "row 3: 0 of 40 (baseline 40) at 6 tokens" in shown
    )


def test_runs_that_stopped_early_are_named_and_not_called_pruned():
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16")
    records = {cell.fingerprint: a_record(cell.fingerprint) for cell in cells}
    assert "stopped early" not in printed(build_table(cells, records), 140)
    records[cells[1].fingerprint]["training"]["stopped_early"] = {"step": 30, "steps": 90}
    shown = " ".join(printed(build_table(cells, records), 140).split())
    assert (
        "stopped early on their own validation loss (trainer.early_stopping): row 2 at step 30 of 90; 2 trained to "
        "their end. These are finished runs, not pruned ones" in shown
    )


def test_rows_answered_by_another_process_are_named():
    cells = [TableCell("", name, "lora", "", answered_by=text) for name, text in (("a", "x"), ("b", None), ("c", "x"))]
    assert answered_elsewhere(cells) == ["rows 1, 3: x"]
    assert answered_elsewhere(cells[:2]) == ["row 1: x"]
