"""Means over seeds: of runs that differ in nothing else, each counted once."""

import csv
import io
import statistics

from rich.console import Console

from harness.report import console, replicates
from harness.report.cells import TableCell
from harness.report.files import write_tables
from harness.report.table import build_table

LOSSES = {0: 1.0, 1: 1.5, 2: 2.3}


def a_record(fingerprint, seed, r=4, **more):
    loss = LOSSES[seed] + r
    return {
        "fingerprint": fingerprint, "method": "lora", "status": "finished", "error": None,
        "plan": {"method": "lora", "settings": {"r": r}, "seed": seed}, "code": {"version": "v1"},
        "parameters": {"trainable": 100 * r, "share": 0.01, "trainable_final": None, "stored": 5},
        "training": {"best_step": None, "validation": [{"step": 1, "loss": loss}]},
        "scores": {"before": {"loss": 9.0}, "after": {"loss": loss, "bleu": 10.0 * seed}, "signatures": {}},
        "adapter": None, "times_s": {}, "memory_bytes": {}, "device": {"type": "cpu", "name": "cpu"}, "audit": {},
    } | more  # fmt: skip


def made(*records, cells=None):
    kept = {each["fingerprint"]: each for each in records}
    cells = cells or [
        TableCell("", f, "lora", f"r={each['plan']['settings']['r']} seed={each['plan']['seed']}")
        for f, each in kept.items()
    ]
    return replicates.seed_table(build_table(cells, kept), kept)


def test_runs_that_differ_in_their_seed_alone_are_one_row():
    table = made(*(a_record(f"r{r}s{seed}", seed, r) for r in (4, 8) for seed in (0, 1, 2)))
    assert [(row["rows"], row["setting"], row["seeds"], row["n"]) for row in table.rows] == [
        ("1 2 3", "r=4", "0 1 2", 3),
        ("4 5 6", "r=8", "0 1 2", 3),
    ]
    losses = [value + 4 for value in LOSSES.values()]
    row = table.rows[0]
    assert (row["loss"], row["loss_sd"]) == (statistics.fmean(losses), statistics.stdev(losses))
    assert (row["validation_loss"], row["validation_loss_sd"]) == (row["loss"], row["loss_sd"])
    assert (row["bleu"], row["bleu_sd"]) == (10.0, 10.0)
    assert row["trainable_parameters"] == 400


def test_only_replicates_are_counted():
    single = a_record("a", 0)
    assert made(single) is None
    assert made(single, a_record("b", 1, r=8)) is None  # another setting
    assert made(single, a_record("b", 1, status="failed", error={"message": "no"})) is None
    assert made(single, a_record("b", 1, code={"version": "v2"})) is None  # another code
    shared = [TableCell("", "a", "lora", "r=4 seed=0"), TableCell("", "a", "lora", "r=4 seed=0 x=1")]
    assert made(single, cells=shared) is None  # one run, two cells


def test_score_that_a_seed_lacks_has_no_mean():
    second = a_record("b", 1)
    del second["scores"]["after"]["bleu"]
    table = made(a_record("a", 0), second)
    assert (table.rows[0]["bleu"], table.rows[0]["bleu_sd"]) == (None, None)
    assert table.rows[0]["loss"] is not None


def test_it_is_printed_and_written_below_the_table(tmp_path):
    records = [a_record(f"s{seed}", seed) for seed in (0, 2)]
    kept = {each["fingerprint"]: each for each in records}
    cells = [TableCell("", f, "lora", f"r=4 seed={each['plan']['seed']}") for f, each in kept.items()]
    runs = build_table(cells, kept)
    over = replicates.seed_table(runs, kept)
    stream = io.StringIO()
    console.to_console(over, Console(file=stream, width=120), title=replicates.TITLE)
    assert replicates.TITLE in stream.getvalue()
    assert "5.650 ± 0.919" in stream.getvalue()
    assert "1-2" in stream.getvalue()
    write_tables(tmp_path, runs, over)
    assert "| 1-2 | lora | r=4 | 2 | 5.650 ± 0.919 |" in (tmp_path / "table.md").read_text()
    [row] = csv.DictReader((tmp_path / "over_seeds.csv").read_text().splitlines())
    assert (row["rows"], row["seeds"], float(row["bleu"])) == ("1 2", "0 2", 10.0)
    write_tables(tmp_path, runs)  # the next command has one seed
    assert not (tmp_path / "over_seeds.csv").exists()
    assert "Over seeds" not in (tmp_path / "table.md").read_text()


def test_rows_are_shown_as_ranges():
    [column] = [column for column in made(a_record("a", 0), a_record("b", 1)).columns if column.name == "rows"]
    assert column.show({"rows": "1 2 3 7 9 10"}) == "1-3, 7, 9-10"
