"""The capability table is what the code says, and what a reader must know of a method reaches the record."""

import importlib
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.runs import prepared, write_rows


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("capability_table")


def test_the_tables_of_readme_and_docs_are_what_the_code_says(table, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["capability_table.py", "--check"])
    assert table.main() == 0, capsys.readouterr().err


def test_a_stale_table_is_reported_and_left_and_a_page_without_markers_is_refused(table, monkeypatch, tmp_path):
    (tmp_path / "docs").mkdir()
    page = "<!-- table:{0} -->\n| old |\n<!-- /table:{0} -->\n"
    (tmp_path / "README.md").write_text(page.format("capabilities"), encoding="utf-8")
    (tmp_path / "docs" / "methods.md").write_text(page.format("library"), encoding="utf-8")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "sheets", lambda: iter(["| new |"]))
    monkeypatch.setattr(sys, "argv", ["capability_table.py", "--check"])
    assert table.main() == 1
    assert "| old |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["capability_table.py"])
    assert table.main() == 0
    assert "| new |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the markers"):
        table.between("no markers", "library", "")


def test_a_methods_caveat_stands_in_the_records_notes(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows", train_rows=8, others=4)
    lily = prepared(random_qwen2, rows, tmp_path, "peft=library", "library.type=lily", "+library.settings={r: 4}")
    assert [note for note in lily.this.fields["notes"] if "scores depend on batch sizes" in note]
    assert not prepared(random_qwen2, rows, tmp_path, "peft=ia3").this.fields["notes"]
