"""Sections of a report that functions of the user's own make."""

from dataclasses import replace

import pytest

from harness.errors import ConfigFault
from harness.report.formats.html import to_html
from harness.report.formats.json_file import to_json
from harness.report.formats.markdown import to_markdown
from harness.report.model import Report, Section
from harness.report.sections import own_sections
from tests.support.own_code import importable, write

CODE = """
from harness.report.model import Section
def costs(report):
    rows = [["x|y", 1.23456], [None, 2]]
    return {"title": "Costs", "text": "<b>*", "columns": ["a", "b"], "rows": rows}
def whole(report): return Section(report.title, ("one", "two"))
def number(report): return 3
def untitled(report): return {"text": "a"}
def strays(report): return {"title": "A", "html": "<p>"}
def ragged(report): return {"title": "A", "columns": ["a"], "rows": [[1, 2]]}
def fails(report): raise KeyError("x")
"""
REPORT = Report("Title", "2026", "", (), "all", (), (), (), ())


@pytest.fixture(autouse=True)
def own(tmp_path):
    with importable(write(tmp_path, own_r=CODE)):
        yield


def sections(*names):
    return own_sections(REPORT, [f"own_r:{name}" for name in names])


def test_a_dict_or_a_section_becomes_one():
    found, notes = sections("costs", "whole")
    assert notes == []
    assert found == [
        Section("Costs", ("<b>*",), ("a", "b"), (("x|y", "1.235"), ("-", "2"))),
        Section("Title", ("one", "two")),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("number", "it returned int 3; return a dict with a title"),
        ("untitled", "return a dict with a title"),
        ("strays", "it returned html besides title, text, columns and rows"),
        ("ragged", "a row of its table does not have 1 cells"),
        ("fails", "KeyError: 'x'"),
    ],
)
def test_a_function_that_fails_costs_its_section_and_not_the_report(name, reason):
    found, [note] = sections(name, "whole")
    assert len(found) == 1
    assert note.startswith(f"report.sections=own_r:{name} is left out: ")
    assert reason in note


def test_a_path_that_leads_nowhere_is_an_error():
    with pytest.raises(ConfigFault, match="own_r has no missing"):
        sections("missing")


def test_every_form_shows_a_section_as_data():
    report = replace(REPORT, sections=tuple(sections("costs")[0]))
    markdown = to_markdown(report)
    assert "## Costs" in markdown
    assert r"| x\|y | 1.235 |" in markdown
    assert r"&lt;b&gt;\*" in markdown
    page = to_html(report)
    assert "&lt;b&gt;*" in page
    assert '<td class="wrap">x|y</td>' in page
    assert '"title": "Costs"' in to_json(report)
