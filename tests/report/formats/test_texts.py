"""CSV, JSON, Markdown and LaTeX: the same content, and what comes from runs is text in all of them."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from harness.report.formats import latex
from harness.report.formats.csv_file import as_text, to_csv
from harness.report.formats.json_file import to_json
from harness.report.formats.latex import to_latex
from harness.report.formats.markdown import to_markdown
from harness.report.overview import overview_columns
from tests.support.reports import NASTY, report_of, rewrite, three_methods, write_run


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    records = three_methods(folder)
    error = {"type": "E", "message": f"={NASTY}\nsecond", "hint": "@hint", "traceback": ""}
    write_run(folder, "bitfit", 0, status="failed", error=error)
    plan = records[0]["plan"]
    rewrite(folder, records[0] | {"plan": plan | {"settings": plan["settings"] | {"init_lora_weights": NASTY}}})
    return folder


@pytest.fixture(scope="module")
def report(runs_dir):
    return report_of(runs_dir, title=NASTY, chosen="all", commands=(f"python -m harness {NASTY}",))


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "＝1"])
def test_a_spreadsheet_computes_no_text(text):
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+2.5e3", "a=1", "", -3.5, None, True])
def test_numbers_and_harmless_texts_stay_as_they_are(value):
    assert as_text(value) == value


def test_csv_has_a_row_for_each_run_with_raw_values(report):
    rows = rows_of(to_csv(report))
    assert len(rows) == 16
    one = next(row for row in rows if row["method"] == "ia3" and row["seed"] == "1")
    assert (float(one["exact_match"]), float(one["exact_match_change"]), one["state"]) == (26.0, 26.0, "finished")
    failed = next(row for row in rows if row["state"] == "failed")
    assert failed["error"].startswith("'=<script>")
    assert "\\x1b" in failed["error"]
    assert (failed["hint"], failed["exact_match"]) == ("'@hint", "")
    assert not any(str(value).startswith(("=", "@", "+")) for row in rows for value in row.values())


def test_json_holds_what_the_page_shows(report):
    content = json.loads(to_json(report))
    [group] = content["groups"]
    assert len(group["configurations"]) == 6
    row = next(row for row in group["configurations"] if row["method"] == "ia3")
    assert (row["seeds"], row["scores"]["exact_match"]["n"]) == ([0, 1, 2], 3)
    assert row["scores"]["exact_match"]["mean"] == pytest.approx(26.0)
    assert group["fronts"]["exact_match"]["trainable_parameters"]
    assert content["findings"]
    assert [run["state"] for run in content["failures"]] == ["failed"]
    assert "details" not in group["runs"][0]


def test_markdown_shows_data_as_data(report):
    text = to_markdown(report)
    assert "<script>" not in re.sub(r"```sh\n.*?\n```", "", text, flags=re.DOTALL)  # a fence shows its text
    assert r"&lt;script&gt;alert('x')&lt;/script&gt;" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({re.sub(r"\\.", "", line).count("|") for line in tables}) == 1
    assert "**89.0 ± 2.5**" in text
    assert "the untouched model: exact\\_match 0.0, loss 4.000" in text
    assert "failed: =&lt;script" in text


def test_latex_has_a_booktabs_table_for_each_group(report):
    text = to_latex(report)
    assert text.count(r"\begin{tabular}") == 1
    assert r"\toprule" in text
    assert r"89.0 $\pm$ 2.5" in text
    assert r"\textless{}script\textgreater{}" in text
    assert r"\DeclareUnicodeCharacter{4E2D}{[U+4E2D]}" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
@pytest.mark.parametrize("paper", [False, True], ids=["alone", "in a paper"])
def test_latex_compiles(report, tmp_path, paper):
    (tmp_path / "report.tex").write_text(to_latex(report), encoding="utf-8")
    if paper:
        declared = "\n".join(line for line in to_latex(report).splitlines() if line.startswith(r"\DeclareUnicode"))
        head = r"\documentclass{article}\usepackage{booktabs,graphicx}"
        body = r"\begin{document}\input{report}\end{document}"
        (tmp_path / "paper.tex").write_text(head + declared + body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex" if paper else "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / ("paper.pdf" if paper else "report.pdf")).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_a_wide_latex_table_is_scaled_down_to_the_page(report, tmp_path, monkeypatch):
    few = [column for column in overview_columns(report.groups[0]) if column.is_score]
    monkeypatch.setattr(latex, "overview_columns", lambda group: few * 20)
    [group] = report.groups
    wide = replace(report, groups=(replace(group, notes=(), findings=()),))
    (tmp_path / "report.tex").write_text(to_latex(wide), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
