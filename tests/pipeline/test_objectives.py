"""What the objective and the scoring template make of rows, and a small run with both."""

from dataclasses import replace

import pytest

from harness.data.tokenize import IGNORED
from harness.errors import ConfigFault
from harness.pipeline.cache import ProcessCache
from harness.plan.spec import plan_from_dict
from tests.support.runs import command, loaded, overrides, plan_of, records_of, write_rows


@pytest.fixture
def words(random_qwen2, tmp_path):
    return overrides(random_qwen2, write_rows(tmp_path / "rows"), tmp_path / "runs")


@pytest.fixture
def rows_of(random_qwen2, words):
    def go(*more):
        plan, _ = plan_of(*words, *more)
        return ProcessCache().rows(plan, loaded(random_qwen2))

    return go


def test_full_sequence_trains_every_token_but_the_first_and_validates_completions(rows_of):
    usual, whole = rows_of(), rows_of("trainer.objective=full_sequence")
    for row in whole.splits["train"]:
        assert row.labels == (IGNORED, *row.input_ids[1:])
    assert [row.input_ids for row in whole.splits["train"]] == [row.input_ids for row in usual.splits["train"]]
    for split in ("validation", "test"):
        assert [row.labels for row in whole.splits[split]] == [row.labels for row in usual.splits[split]]


def test_full_sequence_refuses_turns_that_it_trains_anyway(words):
    with pytest.raises(ConfigFault, match="trains every token already"):
        plan_of(*words, "trainer.objective=full_sequence", "data.train_on=all")


def test_scoring_template_changes_scored_prompts_alone_and_is_noted(rows_of):
    usual, other = rows_of("data.max_tokens=300"), rows_of("scoring.template=alpaca_exact", "data.max_tokens=300")
    assert other.splits == usual.splits == usual.scored
    assert all("### Response:" in row.prompt for row in other.scored["test"])
    assert [row.row.output for row in other.scored["test"]] == [row.row.output for row in usual.scored["test"]]
    assert any("a mismatch on purpose" in note for note in other.notes)
    assert not any("mismatch" in note for note in usual.notes)


def test_scoring_template_of_the_data_is_the_same_experiment(words):
    usual, same = plan_of(*words)[0], plan_of(*words, "scoring.template=lesson", "data.template=lesson")[0]
    assert same.fingerprint == plan_of(*words, "data.template=lesson")[0].fingerprint
    other = plan_of(*words, "scoring.template=alpaca_exact")[0]
    assert other.fingerprint != usual.fingerprint
    assert other.protocol != usual.protocol
    kept = usual.as_dict()
    del kept["scoring"]["template"]  # a record of an earlier version
    assert plan_from_dict(kept).fingerprint == usual.fingerprint
    assert replace(usual, known_as=None).fingerprint == usual.fingerprint


def test_run_of_both_is_scored_and_marked(words, tmp_path):
    done = command(*words, "trainer.objective=full_sequence", "scoring.template=alpaca_exact", "data.max_tokens=300")
    assert done.code == 0, done.err
    [record] = records_of(tmp_path / "runs").values()
    assert record["audit"]["labels"] == "full_sequence"
    assert record["audit"]["supervised_tokens"] > record["audit"]["prompt_tokens"]
    assert any("a mismatch on purpose" in note for note in record["notes"])
