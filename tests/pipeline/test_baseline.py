"""Baselines on disk: a damaged one counts as missing."""

import json

import pytest

from harness.pipeline.baseline import read_baseline
from harness.scoring.score import Scores

SCORES = Scores({"loss": 1.5}, {"rouge_l": "v1"}, ["a", "b"])


def test_a_saved_baseline_is_read_back(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(vars(SCORES)))
    assert read_baseline(tmp_path / "b.json", answers=2) == SCORES
    assert read_baseline(tmp_path / "absent.json", answers=2) is None


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{", "[]", "null", '{"values": {"loss": 1.0}}'),
        json.dumps(vars(SCORES) | {"answers": ["a"]}),
        json.dumps(vars(SCORES) | {"values": {"loss": float("nan")}}),
    ],
)
def test_a_damaged_one_counts_as_missing_and_is_reported(tmp_path, caplog, damage):
    (tmp_path / "b.json").write_text(damage)
    assert read_baseline(tmp_path / "b.json", answers=2) is None
    assert "is not a valid baseline" in caplog.text
    assert "measuring it again" in caplog.text
