"""Every value of a step has its place in the record."""

import pytest

from harness.pipeline.fill import fill
from harness.pipeline.values import Baseline, Predictions, Scored
from harness.record import store
from harness.runtime import threads
from harness.scoring.score import Scores


@pytest.fixture
def record(tmp_path):
    return store.start_record(tmp_path, "a1", "lora", {"seed": 1}, {"seed": 1})


def test_scores_enter_the_record_with_their_cost(record):
    fill(Baseline(Scores({"loss": 4.0}, {}, []), 0.0), record)
    fill(Scored(Scores({"loss": 2.0}, {"rouge_l": "v1"}, []), 3.0, None), record)
    fill(Predictions(None), record)
    values = record.as_dict()
    scores = {"before": {"loss": 4.0}, "after": {"loss": 2.0}, "signatures": {"rouge_l": "v1"}}
    assert values["scores"] == scores | {"cut": {}}
    assert values["times_s"] == {"score_before": 0.0, "score_after": 3.0}
    assert values["memory_bytes"] == {"score_peak": None}


def test_cut_answers_are_counted_and_what_the_check_of_batches_found_is_noted(tmp_path):
    plan = {"scoring": {"generation": {"max_new_tokens": 6}}}
    record = store.start_record(tmp_path, "a1", "lora", plan, {"seed": 1})
    fill(Baseline(Scores({}, {}, ["a", "b"], 2, ["padding matters"]), 0.0), record)
    fill(Scored(Scores({}, {}, ["a", "b"], 0), 3.0, None), record)
    assert record.scores.cut == {"before": 2, "after": 0, "of": 2, "limit": 6}
    assert record.notes == ["scoring before: padding matters"]


def test_fewer_threads_than_cores_are_noted_with_their_reason(record, monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 4.0)
    store.say_once.cache_clear()
    fill(threads.choose(4.0, 2.9), record)
    assert record.inferred["threads_rule"] == "4 cores, 2.9 of them in use by other processes"
    assert record.notes == [
        "computing with 1 of 4 threads: 2.9 cores are in use by other processes; trainer.threads sets another number"
    ]
    record.notes.clear()
    fill(threads.choose(4.0, 0.2), record)
    fill(threads.for_run(1, None), record)
    assert record.notes == []
    assert record.inferred["threads_rule"] == "trainer.threads"


def test_a_value_without_a_place_is_refused(record):
    with pytest.raises(TypeError, match="no place for dict"):
        fill({"loss": 1.0}, record)
