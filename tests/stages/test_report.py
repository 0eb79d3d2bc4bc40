"""stage=report: a table of what is on record."""

import csv

import pytest

from harness.record import provenance
from tests.support.runs import command, overrides, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def sweep(random_qwen2, rows, tmp_path):
    return lambda *words: command("-m", *overrides(random_qwen2, rows, tmp_path / "runs"), *words)


@pytest.mark.slow
def test_report_shows_what_is_on_record_and_marks_other_code(sweep, tmp_path, monkeypatch):
    empty = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert empty.code == 2
    assert "holds no record" in empty.err
    sweep("peft=ia3,lora", "lora.r=2")
    done = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 0
    assert {line.split()[1] for line in done.out.splitlines() if line.strip()[:1] in "12"} >= {"ia3", "lora"}
    assert (tmp_path / "runs" / "table.csv").exists()
    assert "other code" not in done.out
    made_by = provenance.code_version()
    monkeypatch.setattr(provenance, "code_version", lambda: "0123456789abcdef")
    done = command("stage=report", f"runs_dir={tmp_path / 'runs'}")
    assert f"rows 1, 2: made by code {made_by}, not by the present code" in done.out
    with (tmp_path / "runs" / "table.csv").open() as file:
        assert {row["other_code"] for row in csv.DictReader(file)} == {made_by}
