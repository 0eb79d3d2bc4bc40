"""Tables: every cell of the grid, shared runs marked, failures told, numbers never cut."""

import csv
import io
import subprocess
import sys
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.record import provenance
from harness.report import console
from harness.report import table as report_table
from harness.report.cells import TableCell, cells_from_records, setting_of, shared_overrides
from harness.report.files import outcome, to_csv, to_markdown, write_all

BEFORE = {"rouge_l": 2.25, "exact_match": 0.0, "loss": 4.0, "perplexity": 54.598}
AFTER = {"rouge_l": 62.3, "exact_match": 0.0, "loss": 1.5, "perplexity": 4.4817}


def a_record(fingerprint, method="lora", **more):
    """The parts of a finished record that a table reads."""
    return {
        "fingerprint": fingerprint,
        "method": method,
        "status": "finished",
        "plan": {"method": method, "settings": {"r": 8}, "learning_rate": 1e-3, "seed": 1},
        "code": {"version": "0" * 16},
        "device": {"type": "cpu", "name": "cpu"},
        "audit": {"supervised_sha256": "00"},
        "parameters": {
            "total": 10**8,
            "trainable": 1_234_567,
            "share": 0.01234567,
            "trainable_final": None,
            "stored": 5,
        },
        "adapter": {"path": "adapter", "bytes": 4_000, "files": []},
        "times_s": {"train": 20.25},
        "memory_bytes": {"train_peak": 2**30, "score_peak": 2**29, "kind": "process_rss"},
        "training": {"tokens_per_s": 98.8, "best_step": None, "validation": [{"step": 2, "loss": 2.5}]},
        "scores": {"before": dict(BEFORE), "after": dict(AFTER), "signatures": {"rouge_l": "v1"}},
        "error": None,
    } | more


def grid(*overrides):
    cells = []
    for words in overrides:
        method = words.split()[0].removeprefix("peft=")
        fingerprint = "ia3" if method == "ia3" else words.replace("=", "").replace(" ", "")
        cells.append(TableCell(words, fingerprint, method, setting_of(words, method)))
    return cells


SIX = grid(*(f"peft={method} lora.r={r}" for method in ("lora", "ia3") for r in (4, 8, 16)))


def six():
    return report_table.table(SIX, {cell.fingerprint: a_record(cell.fingerprint, cell.method) for cell in SIX})


def printed(table, width):
    stream = io.StringIO()
    console.to_console(table, Console(file=stream, width=width))
    return stream.getvalue()


def parsed(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_six_cells_of_four_runs_are_six_rows_with_the_sharing_marked():
    table = six()
    assert [row["shares_row"] for row in table.rows] == [None, None, None, None, 4, 4]
    assert [row["setting"] for row in table.rows] == ["r=4", "r=8", "r=16", "(lora.r=4)", "(lora.r=8)", "(lora.r=16)"]
    for text in (printed(table, 140), to_markdown(table)):
        assert "5 = 4" in text
        assert "6 = 4" in text
        assert "no replicate" in text
    assert [row["shares_row"] for row in parsed(table)] == ["", "", "", "", "4", "4"]
    assert outcome(table) == "6 cells, 4 runs: 4 finished"


def test_a_score_shows_value_and_signed_change_and_the_csv_keeps_both_exactly():
    table = six()
    text = printed(table, 200)
    assert "62.3 (+60.0)" in text
    assert "1.500 (-2.500)" in text
    assert "0.0 (±0.0)" in text
    row = parsed(table)[0]
    assert float(row["rouge_l"]) == AFTER["rouge_l"]
    assert float(row["rouge_l_change"]) == AFTER["rouge_l"] - BEFORE["rouge_l"]
    assert int(row["trainable_parameters"]) == 1_234_567
    assert int(row["peak_train_bytes"]) == 2**30
    assert "1.2M" in text


def test_headers_say_which_direction_is_better():
    text = printed(six(), 200)
    assert "rouge_l ↑" in text
    assert "loss ↓" in text
    assert "perplexity ↓" in text


def test_the_shared_baseline_is_given_beneath():
    assert "baseline (the untouched base model): rouge_l 2.2" in printed(six(), 140)
    records = {"a": a_record("a"), "b": a_record("b")}
    records["b"]["scores"]["before"] = BEFORE | {"rouge_l": 9.0}
    table = report_table.table([TableCell("", key, "lora", "") for key in records], records)
    assert "changes are from each row's own baseline" in printed(table, 140)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 140, 200])
def test_no_width_cuts_a_number(width):
    table = six()
    text = printed(table, width)
    assert "…" not in text
    lines = [line for line in text.splitlines() if "1.2M" in line]
    assert len(lines) == 6
    assert all("2.500" in line for line in lines)
    for column in table.columns:
        if column.label in text.partition("baseline")[0] and not column.is_text:
            assert column.show(table.rows[0]) in text
    shown = text.partition("baseline")[0]
    missing = [column.label for column in table.columns if column.label not in shown]
    told = "".join(text.split()).partition("leftoutatthiswidth:")[2]
    assert all("".join(label.split()) in told for label in missing)


@pytest.mark.parametrize("width", [100, 140])
def test_usual_terminals_show_every_figure_without_long_lines(width):
    text = printed(six(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for label in ("trainable", "share %", "train s", "tokens/s", "peak MiB", "val. loss", "rouge_l", "loss"):
        assert label in text.partition("baseline")[0]


def test_long_settings_fold_and_wide_characters_stay_aligned():
    setting = "lora.target_modules=[q_proj,k_proj,v_proj,o_proj] data.path=医学问答.jsonl"
    cells = [TableCell("", "a", "lora", setting), TableCell("", "b", "lora", "短")]
    text = printed(report_table.table(cells, {key: a_record(key) for key in "ab"}), 100)
    block = text.partition("\n\n")[0].splitlines()
    assert len(block) > 3
    assert max(cell_len(line) for line in block) <= 100
    first, second = (line for line in block if "1.2M" in line)
    assert cell_len(first.partition("1.2M")[0]) == cell_len(second.partition("1.2M")[0])
    start = block[0].index("setting")
    width = block[0].index("state") - start if "state" in block[0] else block[0].index("trainable") - start
    folded = "".join("".join(line[start : start + width].split()) for line in block[1:-1])
    assert folded.startswith("lora.target_modules=[q_proj,k_proj,v_proj,o_proj]")


def test_failed_interrupted_and_missing_cells_stay_in_grid_order_and_say_why():
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16", "peft=ia3")
    error = {"type": "MemoryError", "message": "CUDA out of memory\nsecond line", "hint": "lower it", "traceback": "x"}
    killed = {"type": "Interrupted", "message": "process 7 ended", "hint": "", "traceback": ""}
    records = {
        cells[0].fingerprint: a_record("a", status="failed", error=error),
        cells[1].fingerprint: a_record("b", status="interrupted", error=killed),
        cells[3].fingerprint: a_record("d", "ia3"),
    }
    table = report_table.table(cells, records)
    assert [row["state"] for row in table.rows] == ["failed", "interrupted", "not run", "finished"]
    text = printed(table, 140)
    assert "row 1 failed: CUDA out of memory - lower it" in text
    assert "second line" not in text
    assert "row 2 interrupted: process 7 ended" in text
    assert "not run" in text
    assert outcome(table) == "4 cells, 4 runs: 1 failed, 1 interrupted, 1 not run, 1 finished"
    assert parsed(table)[0]["error"] == "CUDA out of memory\nsecond line"


def test_figures_of_half_a_run_are_no_result():
    table = report_table.table([TableCell("", "a", "lora", "")], {"a": a_record("a", status="failed")})
    (row,) = table.rows
    assert row["trainable_parameters"] == 1_234_567
    assert row["rouge_l"] is row["train_s"] is row["validation_loss"] is row["peak_train_bytes"] is None


def test_reused_records_are_told_from_fresh_ones():
    table = report_table.table([TableCell("", "a", "lora", "", reused=True)], {"a": a_record("a")})
    assert "reused" in printed(table, 140)
    assert parsed(table)[0]["reused"] == "True"


def test_validation_loss_is_that_of_the_weights_that_were_kept():
    points = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 2.0}]
    assert report_table.validation_loss({"training": {"validation": points, "best_step": 2}}) == 1.0
    assert report_table.validation_loss({"training": {"validation": points, "best_step": None}}) == 2.0
    assert report_table.validation_loss({"training": {}}) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": {"version": "1" * 16}}, "code"),
        ({"device": {"type": "cuda", "name": "H100"}}, "device"),
        ({"audit": {"supervised_sha256": "ff"}}, "training tokens"),
        ({"scores": {"before": BEFORE, "after": AFTER, "signatures": {"rouge_l": "v2"}}}, "signature of rouge_l"),
    ],
)
def test_what_does_not_compare_is_said(change, said):
    cells = grid("peft=lora lora.r=4", "peft=lora lora.r=8", "peft=lora lora.r=16")
    records = {cell.fingerprint: a_record(cell.fingerprint) for cell in cells}
    assert "differ in" not in printed(report_table.table(cells, records), 140)
    records[cells[1].fingerprint] |= change
    assert f"rows 1,3 | 2 differ in {said}" in printed(report_table.table(cells, records), 140)


def test_pruned_parameters_show_both_counts():
    run = a_record("a", "adalora")
    run["parameters"] |= {"trainable": 1_800_000, "trainable_final": 1_200_000}
    text = printed(report_table.table([TableCell("", "a", "adalora", "")], {"a": run}), 140)
    assert "1.8M→1.2M" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (576, "576"),
        (999, "999"),
        (1000, "1.0k"),
        (9216, "9.2k"),
        (999_949, "999.9k"),
        (999_950, "1.0M"),
        (31 * 10**8, "3.1B"),
    ],
)
def test_counts_are_humanised_without_odd_carries(count, text):
    assert report_table.humanised(count) == text


@pytest.mark.parametrize(
    ("overrides", "method", "shared", "setting"),
    [
        ("peft=lora lora.r=4", "lora", (), "r=4"),
        ("peft=ia3 lora.r=4", "ia3", (), "(lora.r=4)"),
        ("peft=ia3", "ia3", (), ""),
        ("peft=lora seed=1 +data=x lora.r=4", "lora", ("+data=x",), "seed=1 r=4"),
        ("peft=lora lora.r=4 seed=1", "lora", ("lora.r=4", "seed=1"), "r=4"),
        ("peft=lora lora.target_modules=[q_proj, v_proj]", "lora", (), "target_modules=[q_proj, v_proj]"),
        (
            "peft=lora trainer.learning_rate=1e-3 sweep.name='a b'",
            "lora",
            (),
            "trainer.learning_rate=1e-3 sweep.name='a b'",
        ),
        (("peft=lora", "lora.r=4"), "lora", (), "r=4"),
    ],
)
def test_a_setting_is_what_tells_cells_apart(overrides, method, shared, setting):
    assert setting_of(overrides, method, shared) == setting


def test_shared_overrides_are_those_of_every_cell():
    assert shared_overrides(["peft=lora seed=1 data=x", "peft=ia3 seed=2 data=x"]) == {"data=x"}
    assert shared_overrides(["peft=lora data=x"]) == frozenset()


def test_records_without_a_command_are_told_apart_by_their_plans():
    def plan(method, rate, seed, **settings):
        model = {"name": method, "path": method}
        return {"method": method, "settings": settings, "learning_rate": rate, "seed": seed, "model": model}

    records = [
        a_record("a", plan=plan("lora", 1e-3, 1, r=4, alpha=8)),
        a_record("b", plan=plan("lora", 1e-4, 1, r=8, alpha=8)),
        a_record("c", "ia3", plan=plan("ia3", 1e-2, 2)),
    ]
    settings = [cell.setting for cell in cells_from_records(records)]
    assert settings == [
        "r=4 learning_rate=0.001 seed=1 model.name=lora",
        "r=8 learning_rate=0.0001 seed=1 model.name=lora",
        "seed=2 model.name=ia3",
    ]


def test_markdown_shows_data_as_data():
    cell = TableCell("", "a", "lora", "x=a|b <img src=x> [l](u) `c`")
    text = to_markdown(report_table.table([cell], {"a": a_record("a")}))
    assert r"x=a\|b &lt;img src=x&gt; \[l\](u) \`c\`" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_brackets_in_settings_are_no_console_markup():
    cell = TableCell("", "a", "lora", "[bold]x[/bold]")
    assert "[bold]x[/bold]" in printed(report_table.table([cell], {"a": a_record("a")}), 200)


def test_files_are_written_and_written_again(tmp_path):
    for _ in range(2):
        write_all(tmp_path / "sweep", six())
    assert sorted(file.name for file in (tmp_path / "sweep").iterdir()) == ["table.csv", "table.md"]
    assert len(list(csv.DictReader((tmp_path / "sweep" / "table.csv").read_text().splitlines()))) == 6


def test_a_table_without_cells_is_empty_and_no_crash():
    table = report_table.table([], {})
    assert to_csv(table) == "row\n"
    assert printed(table, 80)


def test_ten_thousand_rows_are_tabulated_in_seconds():
    records = {f"f{n}": a_record(f"f{n}") for n in range(10_000)}
    begin = time.perf_counter()
    table = report_table.table(cells_from_records(list(records.values())), records)
    to_csv(table)
    to_markdown(table)
    printed(table, 100)
    assert time.perf_counter() - begin < 10.0


def test_report_needs_no_torch():
    code = "import sys, harness.report; sys.exit('torch' in sys.modules)"
    root = provenance.PACKAGE.parent
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_method_of_the_library_is_told_by_its_type():
    [cell] = grid("peft=library library.type=lily")
    made = a_record(cell.fingerprint, "library", plan={"settings": {"type": "lily"}})
    assert report_table.table([cell], {cell.fingerprint: made}).rows[0]["method"] == "library:lily"
    assert report_table.table([cell], {}).rows[0]["method"] == "library"
