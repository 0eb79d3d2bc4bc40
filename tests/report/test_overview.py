"""The table of a group: cells, best values, and what a console shows."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from harness.report.overview import cost_text, overview_columns, print_report, shares_best
from tests.support.reports import NASTY, report_of, three_methods, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    three_methods(folder)
    return report_of(folder)


def test_cells_have_mean_and_half_of_the_interval(report):
    [group] = report.groups
    columns = {column.name: column for column in overview_columns(group)}
    row = next(row for row in group.configurations if row.setting == "r=8")
    assert columns["exact_match"].text(row) == "76.0 ± 2.5"
    assert columns["exact_match"].value(row) == pytest.approx(76.0)
    assert columns["setting"].text(row) == "r=8"
    assert columns["seeds"].text(row) == "3"
    assert columns["runs"].text(row) == f"{row.runs[0]} +2"
    assert "remarks" not in columns


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("trainable_parameters", 1_234_567, "1.2M"),
        ("adapter_bytes", 2**20, "1"),
        ("train_s", 12.3456, "12.35"),
        ("train_s", 12345.6, "12346"),
        ("peak_train_bytes", None, "-"),
    ],
)
def test_costs_have_four_digits(name, value, text):
    assert cost_text(name, value) == text


def test_what_the_noise_floor_cannot_tell_from_the_best_shares_its_mark(report):
    [group] = report.groups
    names = {row.key: row.label for row in group.configurations}
    assert {names[key] for key in shares_best(group, "exact_match")} == {"full"}
    near = [replace(row, floors={"exact_match": 20.0}) for row in group.configurations]
    wide = replace(group, configurations=tuple(near))
    assert {names[key] for key in shares_best(wide, "exact_match")} == {"full", "lora r=8"}
    unknown = replace(group, configurations=tuple(replace(row, floors={}) for row in group.configurations))
    assert shares_best(unknown, "exact_match") == frozenset()


def test_a_console_shows_tables_findings_and_failures(tmp_path, report):
    write_run(tmp_path, "lora", 0)
    error = {"type": "E", "message": NASTY, "hint": "", "traceback": ""}
    write_run(tmp_path, "ia3", 0, status="failed", error=error)
    stream = io.StringIO()
    print_report(report_of(tmp_path), Console(file=stream, width=120))
    print_report(report, Console(file=stream, width=120))
    text = stream.getvalue()
    assert "tiny on medicine, test split" in text
    assert "- Highest exact_match: full" in text
    assert "failed: <script>" in text
    assert "\x1b" not in text
