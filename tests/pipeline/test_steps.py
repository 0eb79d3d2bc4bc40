"""Steps that are not tuning: what each writes and returns."""

import json
from dataclasses import replace

import pytest

from harness.data.rows import Row
from harness.data.tokenize import TokenizedRow
from harness.pipeline import steps
from harness.pipeline.values import Baseline, Scored
from harness.scoring.score import Scores
from harness.trackers.base import NoRun


class Tracker(NoRun):
    """Keeps the tables that it gets."""

    def __init__(self):
        self.tables = []

    def table(self, name, columns, rows):
        self.tables.append((name, columns, rows))


def scores(*answers):
    return Scores({"loss": 1.0}, {}, list(answers))


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def rows():
    made = [Row(number, "test", "Color?", "sky", f"reference {number}", (), None) for number in range(2)]
    return [TokenizedRow((1, 2, 3), 2, row, f"prompt {row.number}") for row in made]


def test_predictions_pair_both_answers_with_prompt_and_reference(tmp_path, tracker, rows):
    before, after = Baseline(scores("a", "b"), 0.0), Scored(scores("c", "d"), 0.0, None)
    assert steps.write_predictions(tmp_path, tracker, rows, before, after).name == "predictions.jsonl"
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert lines == [
        {"prompt": "prompt 0", "reference": "reference 0", "before": "a", "after": "c"},
        {"prompt": "prompt 1", "reference": "reference 1", "before": "b", "after": "d"},
    ]
    assert tracker.tables == [("predictions", list(lines[0]), [list(line.values()) for line in lines])]


def test_predictions_have_the_scores_of_each_row(tmp_path, tracker, rows):
    before = replace(scores("a", "b"), rows={"rouge_l": [0.0, 50.0]})
    after = replace(scores("c", "d"), rows={"rouge_l": [100.0, 25.0]})
    steps.write_predictions(tmp_path, tracker, rows, Baseline(before, 0.0), Scored(after, 0.0, None))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert lines[1]["scores"] == {"before": {"rouge_l": 50.0}, "after": {"rouge_l": 25.0}}


def test_without_answers_there_are_no_predictions(tmp_path, tracker, rows):
    before, after = Baseline(scores(), 0.0), Scored(scores(), 0.0, None)
    assert steps.write_predictions(tmp_path, tracker, rows, before, after).name is None
    assert list(tmp_path.iterdir()) == []
    assert tracker.tables == []
