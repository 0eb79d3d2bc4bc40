"""Files: data is shown as data, and written again by the next command."""

import csv

from harness.report.cells import TableCell
from harness.report.files import to_markdown, write_tables
from harness.report.table import build_table
from tests.support.records import a_record, six


def test_markdown_shows_data_as_data():
    cell = TableCell("", "a", "lora", "x=a|b <img src=x> [l](u) `c`")
    text = to_markdown(build_table([cell], {"a": a_record("a")}))
    assert r"x=a\|b &lt;img src=x&gt; \[l\](u) \`c\`" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_files_are_written_and_written_again(tmp_path):
    for _ in range(2):
        write_tables(tmp_path / "sweep", six())
    assert sorted(file.name for file in (tmp_path / "sweep").iterdir()) == ["table.csv", "table.md"]
    assert len(list(csv.DictReader((tmp_path / "sweep" / "table.csv").read_text().splitlines()))) == 6
