"""Reports of runs on record that say whether a paper's shape is there."""

import json

from harness.config.schema import Paper
from harness.report.formats.html import to_html
from harness.report.formats.json_file import to_json
from harness.report.formats.markdown import to_markdown
from tests.support.reports import NASTY, report_of, write_run

PAPER = Paper(
    claim="ranks help <b>",
    source="a paper | 1234.5678",
    figures="1, 2, 3",
    expect=["monotone(score, lora.r)", "best(loss, full) < best(loss, lora)", "best(chrf, lora) < 1"],
    arms={"lora": "peft=lora", "full": "peft=full"},
)


def made(tmp_path, paper=PAPER):
    for seed in range(3):
        write_run(tmp_path, "lora", seed, "lora.r=4", score=50.0 + seed)
        write_run(tmp_path, "lora", seed, "lora.r=8", score=75.0 + seed)
        write_run(tmp_path, "full", seed, score=25.0 + seed)
    return report_of(tmp_path, paper=paper)


def test_verdicts_stand_in_every_form(tmp_path):
    report = made(tmp_path)
    [shape] = report.shapes
    assert [each.verdict for each in shape.rules] == ["agrees", "does not agree", "underpowered"]
    assert shape.verdict == "does not agree"
    page, text = to_html(report), to_markdown(report)
    kept = json.loads(to_json(report))["shapes"][0]
    assert kept["verdict"] == "does not agree"
    assert kept["rules"][2]["measured"] == "chrf is not measured in all runs of lora"
    for form in (page, text):
        assert "shape does not agree" in form
        assert "ranks help &lt;b&gt;" in form
    assert "97.5 % are needed" in page


def test_no_rules_no_verdict(tmp_path):
    nothing = Paper(claim=None, source=None, figures=NASTY, expect=[], arms={})
    assert made(tmp_path, nothing).shapes == ()
