"""Scores and values per row from records and predictions on disk."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from harness.report.statistics.reader import (
    FinishedRun,
    has_rows,
    read_scores,
)
from tests.support.paths import ROOT
from tests.support.records import a_record

AFTER = {"rouge_l": 50.0, "loss": 1.5, "bleu": 20.0}


def a_plan(**more):
    usual = {
        "method": "lora",
        "settings": {"r": 8},
        "learning_rate": 1e-3,
        "seed": 1,
        "model": {"path": "m", "name": "tiny", "dtype": "float32", "device": "cpu", "attn_implementation": None},
        "data": {"name": "d", "template": "alpaca", "metrics": ["rouge_l"]},
        "trainer": {"epochs": 1, "threads": 1, "learning_rate": 1e-3},
        "scoring": {"tokenize": "13a", "split": "test", "generation": {"batch_size": 8, "max_new_tokens": 9}},
        "inputs": {"data": "hash"},
    }
    return usual | more


def lines(*values, **more):
    """Lines of predictions with these scores of ``rouge_l``."""
    return [
        {
            "prompt": f"p{k}",
            "reference": "the sky",
            "before": "",
            "after": "the sky",
            "scores": {"after": {"rouge_l": v}},
        }
        | more
        for k, v in enumerate(values)
    ]


@pytest.fixture
def run(tmp_path):
    """Writes a finished run, with predictions unless they are None; returns what the reader takes."""

    def write(fingerprint="abc", predictions=(), scores=AFTER, **more):
        folder = tmp_path / fingerprint
        folder.mkdir(exist_ok=True)
        if predictions is not None:
            text = "".join(f"{json.dumps(line)}\n" for line in predictions or lines(25.0, 75.0))
            (folder / "predictions.jsonl").write_text(text, encoding="utf-8")
        scored = {"before": {}, "after": dict(scores), "signatures": {}}
        plan = more.pop("plan", a_plan())
        record = a_record(fingerprint, plan=plan, scores=scored, predictions="predictions.jsonl", **more)
        return FinishedRun(record, folder, "r8", "mine", "lora r=8")

    return write


def rouge(read):
    [found] = read.of("rouge_l")
    return found


def test_a_run_becomes_one_entry_per_score_with_the_values_of_its_rows(run):
    read = read_scores([run()])
    assert {each.metric: each.aggregate for each in read.scores} == AFTER | {"validation_loss": 2.5}
    found = rouge(read)
    assert (found.method, found.seed, found.label, found.fingerprint) == ("lora", 1, "lora r=8", "abc")
    assert found.rows.tolist() == [25.0, 75.0]
    assert all(each.rows is None for each in read.scores if each.metric != "rouge_l")
    assert read.notes == []


def test_only_the_scores_asked_for_are_read(run):
    assert [each.metric for each in read_scores([run(predictions=None)], metrics=["loss"]).scores] == ["loss"]


def test_the_same_rows_have_one_digest_and_others_another(run):
    same = [rouge(read_scores([run(name)])).row_set for name in ("abc", "def")]
    assert same[0] == same[1]
    changed = lines(25.0, 75.0, reference="the sea")
    assert rouge(read_scores([run("ghi", changed)])).row_set != same[0]


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (None, "predictions.jsonl is missing (1 run: abc): comparisons count their seeds alone"),
        ("{", "predictions.jsonl cannot be read (JSONDecodeError)"),
        ("[]\n", "predictions.jsonl cannot be read (TypeError)"),
        ('{"prompt": "p"}\n', "predictions.jsonl cannot be read (KeyError)"),
        ("", "predictions.jsonl cannot be read (ValueError)"),
    ],
)
def test_missing_or_damaged_predictions_cost_the_rows_alone_and_are_noted(run, damage, note):
    this = run(predictions=None)
    if damage is not None:
        (this.folder / "predictions.jsonl").write_text(damage)
    read = read_scores([this])
    assert rouge(read).aggregate == 50.0
    assert rouge(read).rows is None
    assert any(each.startswith(note) for each in read.notes)


def test_a_run_without_answers_is_noted(run):
    this = run(predictions=None)
    read = read_scores([FinishedRun({**this.record, "predictions": None}, this.folder, "r8")])
    assert read.notes == ["no answers were kept (1 run: abc): comparisons count their seeds alone"]


def test_values_that_do_not_add_up_to_the_record_are_not_used(run):
    read = read_scores([run(predictions=lines(25.0, 80.0))])
    assert rouge(read).rows is None
    assert read.notes[0].startswith("rouge_l: the scores of rows do not add up to the score on record")


def test_values_that_are_no_numbers_are_not_used(run):
    read = read_scores([run(predictions=lines("high", None))])
    assert rouge(read).rows is None
    assert read.notes[0].startswith("rouge_l: the scores of rows were not kept")


def test_earlier_runs_have_their_rows_scored_again(run):
    answers = [("the sky", 100.0), ("the sea", 50.0), ("water", 0.0)]
    old = [{"prompt": "p", "reference": "the sky", "before": "", "after": answer} for answer, _ in answers]
    scores = {"rouge_l": 50.0, "token_f1": 100 / 3, "exact_match": 100 / 3, "final_number": 0.0, "names_target": 1.0}
    read = read_scores([run(predictions=old, scores=scores)])
    assert rouge(read).rows.tolist() == [value for _, value in answers]
    assert np.mean(read.of("exact_match")[0].rows) == pytest.approx(100 / 3)
    assert read.of("final_number")[0].rows.tolist() == [0.0, 0.0, 0.0]
    assert read.of("token_f1")[0].rows is not None
    assert read.of("names_target")[0].rows is None
    assert read.notes == [
        "names_target: the scores of rows were not kept (1 run: abc): comparisons count their seeds alone"
    ]


def test_several_references_are_all_used(run):
    old = [{"prompt": "p", "reference": "a b", "references": ["a b", "the sky"], "before": "", "after": "the sky"}]
    assert rouge(read_scores([run(predictions=old, scores={"rouge_l": 100.0})])).rows.tolist() == [100.0]


def test_unfinished_runs_and_scores_that_are_not_finite_are_left_out(run):
    read = read_scores([run("abc", status="failed"), run("def", scores={"rouge_l": 50.0, "loss": None})])
    assert {each.fingerprint for each in read.scores} == {"def"}
    assert {each.metric for each in read.scores} == {"rouge_l", "validation_loss"}


def test_nothing_is_written(run):
    this = run()
    before = sorted(path.name for path in this.folder.iterdir())
    os.chmod(this.folder, 0o500)
    try:
        assert rouge(read_scores([this])).rows is not None
    finally:
        os.chmod(this.folder, 0o700)
    assert sorted(path.name for path in this.folder.iterdir()) == before


def test_a_group_that_the_page_names_is_kept(run):
    this = run()
    assert rouge(read_scores([FinishedRun(this.record, this.folder, "r8", "mine")])).group == "mine"


def test_means_over_rows_are_the_scores_with_values_per_row():
    assert has_rows("names_target")
    assert not any(has_rows(name) for name in ("loss", "bleu", "item_f1", "a score of other code"))


def test_reading_imports_no_torch():
    code = "import sys, harness.report.statistics.analysis, harness.report.statistics.reader; "
    code += "sys.exit(bool({'torch', 'transformers', 'statsmodels', 'pandas'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
