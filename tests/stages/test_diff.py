"""stage=diff: what differs between two runs, and nothing else."""

import json

import pytest

from harness.errors import ConfigFault
from harness.report.difference import curve_points, differences
from harness.stages.diff import show_difference
from tests.report.test_wandb_report import fill, store_again
from tests.support.runs import plan_of
from tests.support.sweeps import finish_record, make_cell


@pytest.fixture
def two(tmp_path, weightless):
    records = []
    for number, words in enumerate((("lora.r=4",), ("lora.r=8",))):
        cell = make_cell(tmp_path, weightless, *words)
        record = finish_record(cell, predictions="predictions.jsonl")
        fill(record, number)
        rows = [{"prompt": "p", "after": "a"}, {"prompt": "q", "after": f"b{number}\x1b[31m"}]
        (cell.folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        store_again(tmp_path, record)
        records.append(record)
    return records


def options(tmp_path, weightless, *runs):
    return plan_of(f"model.path={weightless}", f"runs_dir={tmp_path}", "stage=diff", f"diff.runs=[{','.join(runs)}]")[1]


def test_settings_scores_and_answers_that_differ_are_shown(two, tmp_path, weightless, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    one, other = two
    show_difference(options(tmp_path, weightless, one["fingerprint"], other["fingerprint"][:6]))
    shown = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in shown.splitlines() if (words := line.split())}
    assert rows["lora.r"] == ["4", "8", "+4"]
    assert rows["after.loss"] == ["↓", "2", "2.1", "+0.1"]
    assert "1 of 2 answers differ" in shown
    assert "trainer.epochs" not in shown  # equal
    assert max(map(len, shown.splitlines())) <= 80


def test_equal_records_have_no_difference(two):
    assert differences(two[0], two[0]) == []
    assert curve_points(two[0], two[0]) == [(1, 3.0, 3.0)]


def test_of_long_lists_only_what_the_other_has_not_is_shown(two):
    one, other = two
    names = [f"model.layers.{number}.q_proj" for number in range(5)]
    left = one | {"inferred": one["inferred"] | {"target_modules": names}}
    right = other | {"inferred": other["inferred"] | {"target_modules": [*names[1:], "head"]}}
    found = {each.name: (each.one, each.other) for each in differences(left, right)}
    assert found["inferred.target_modules"] == (
        "5 entries, only here: model.layers.0.q_proj",
        "5 entries, only here: head",
    )


def test_a_run_that_does_not_exist_is_named(two, tmp_path, weightless):
    with pytest.raises(ConfigFault, match=r"diff\.runs=zzz matches no run"):
        show_difference(options(tmp_path, weightless, two[0]["fingerprint"], "zzz"))
