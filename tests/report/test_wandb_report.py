"""The W&B report: its runs by id, a plot of each kind, the findings as plain text, and no request to build it."""

import json
import socket

import pytest

from harness.report.build import Request, build_report
from harness.report.choose import FoundRun, read_runs
from harness.report.wandb_report import build_wandb_report, specification, tracked_runs
from tests.support.sweeps import finish_record, make_cell

TRACKED = {"name": "wandb", "project": "toy", "entity": "team", "group": "g", "url": None}


@pytest.fixture
def found(tmp_path, weightless):
    """Two settings of LoRA with two seeds each; all but the last are in W&B."""
    for number, words in enumerate([(r, seed) for r in (4, 8) for seed in (0, 1)]):
        cell = make_cell(tmp_path / "runs", weightless, f"lora.r={words[0]}", f"seed={words[1]}")
        record = finish_record(cell)
        fill(record, number)
        store_again(tmp_path / "runs", record)
    return read_runs([tmp_path / "runs"])


def fill(record, number):
    record["scores"] |= {"before": {"loss": 4.0}, "after": {"loss": 2.0 + number / 10, "rouge_l": 50.0 + number}}
    record["parameters"] |= {"total": 100, "trainable": 10, "share": 0.1, "stored": 10}
    record["training"] = {"validation": [{"step": 1, "loss": 3.0}], "best_step": None, "tokens_per_s": 5.0}
    record["tracker"] = TRACKED | {"id": f"run{number}"} if number < 3 else None


def store_again(runs_dir, record):
    from harness.record import store

    store.write_record(runs_dir, record)


def built(found, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("makes a request"))
    report = build_report(found, Request(title="<b>mine</b> *x*", chosen="4 of 4 runs", command="python -m harness"))
    return report, json.loads(specification(build_wandb_report(report, tracked_runs(found), "toy", None)))


def test_runs_are_chosen_by_their_ids_and_missing_ones_are_named(found, monkeypatch):
    tracked = tracked_runs(found)
    assert (sorted(tracked.ids.values()), tracked.project, tracked.entity) == (["run0", "run1", "run2"], "toy", "team")
    (missing,) = tracked.missing
    _, spec = built(found, monkeypatch)
    (grid,) = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    (runs,) = grid["metadata"]["runSets"]
    assert sorted(runs["filters"]["filters"][0]["value"]) == ["run0", "run1", "run2"]
    assert f"1 of its runs are not in this project: {missing}" in json.dumps(spec)


def test_it_has_trade_offs_bars_with_errors_curves_settings_and_answers(found, monkeypatch):
    _, spec = built(found, monkeypatch)
    (grid,) = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    kinds = [panel["viewType"] for panel in panels]
    wanted = ("Scatter Plot", "Bar Chart", "Parallel Coordinates Plot", "Run History Line Plot", "Weave")
    assert set(kinds) == set(wanted)
    first = {panel["viewType"]: panel["config"] for panel in reversed(panels)}
    scatter, bar = first["Scatter Plot"], first["Bar Chart"]
    assert (scatter["xAxis"], scatter["yAxis"], scatter["xAxisLogScale"]) == (
        *("summary:parameters/trainable", "summary:after/rouge_l"),
        True,
    )
    assert (scatter["showMaxYAxisLine"], scatter["showMinYAxisLine"]) == (True, False)
    assert (bar["groupBy"], bar["groupArea"]) == ("configuration.value", "stddev")  # LoRA has two settings
    columns = next(p["config"]["columns"] for p in panels if p["viewType"].startswith("Parallel"))
    assert {"config:settings.value.r", "config:learning_rate.value", "summary:after/loss"} <= {
        each["accessor"] for each in columns
    }
    places = [(p["layout"]["x"], p["layout"]["y"]) for p in panels]
    assert len(set(places)) == len(places)


def test_findings_are_text_not_markup(found, monkeypatch):
    report, spec = built(found, monkeypatch)
    assert report.findings
    texts = json.dumps([block for block in spec["blocks"] if block["type"] == "list"], ensure_ascii=False)
    assert all(json.dumps(each.text, ensure_ascii=False)[1:-1] in texts for each in report.headlines)
    assert not any(block["type"] == "markdown-block" for block in spec["blocks"])


def test_runs_of_another_project_are_left_out_and_named(found):
    other = [FoundRun({**run.record, "tracker": TRACKED | {"id": "x", "project": "else"}}, run.folder) for run in found]
    tracked = tracked_runs([*found[:3], other[3]])
    assert tracked.elsewhere == (other[3].fingerprint,)
    assert tracked_runs([]).project is None
