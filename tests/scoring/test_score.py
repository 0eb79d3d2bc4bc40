"""Scores of a model under one protocol: reproducible, finite, and no answers if no metric needs them."""

import math
from dataclasses import replace
from unittest import mock

import pytest
import torch

from harness.errors import RunFault
from harness.models.base import load_base
from harness.scoring import score as scoring_score
from harness.scoring.batching import needs_equal_lengths
from harness.scoring.generate import Answer
from harness.scoring.score import score
from tests.support.runs import overrides, plan_of, prepared


def test_sampling_follows_the_seed(make):
    made = make("scoring.generation.do_sample=true", "scoring.generation.max_new_tokens=8")
    model, tokenizer = made.model, made.base.tokenizer

    def answers(seed):
        scoring, examples = made.plan.scoring, made.rows.splits["test"]
        return score(model, tokenizer, examples, [], scoring, stops=(2,), equal_lengths=False, seed=seed).answers

    assert answers(3) == answers(3)
    assert answers(3) != answers(4)


def test_a_loss_that_is_not_finite_is_a_fault_not_a_result(make):
    made = make()
    with torch.no_grad():
        next(weight for weight in made.model.parameters() if weight.requires_grad).fill_(math.inf)
    arguments = {"stops": (2,), "equal_lengths": False, "seed": 0}
    with pytest.raises(RunFault, match=r"scoring\.split=test is not finite"):
        score(made.model, made.base.tokenizer, made.rows.splits["test"], [], made.plan.scoring, **arguments)


def test_without_metrics_nothing_is_generated(make):
    made = make()
    scoring = replace(made.plan.scoring, metrics=[])
    with mock.patch.object(scoring_score, "generate", side_effect=AssertionError):
        found = score(made.model, made.base.tokenizer, made.rows.splits["test"], made.rows.splits["train"],
                            scoring, stops=(2,), equal_lengths=False, seed=0)  # fmt: skip
    assert found.answers == []
    assert found.values["perplexity"] == pytest.approx(math.exp(found.values["loss"]))
    assert "forgetting_loss" in found.values


def test_a_row_with_several_references_is_scored_against_all(make):
    made = make("scoring.metrics=[exact_match,token_f1,rouge_l,bleu]", "scoring.generation.max_new_tokens=1")
    row = made.rows.splits["test"][0]
    rows = [replace(row, row=replace(row.row, references=(row.row.output, "blue sky over us"))) for _ in range(2)]
    answers = [Answer("blue sky over us", cut=False), Answer(row.row.output, cut=True)]
    with mock.patch.object(scoring_score, "generate", return_value=answers):
        found = score(made.model, made.base.tokenizer, rows, [], made.plan.scoring,
                      stops=(2,), equal_lengths=False, seed=0)  # fmt: skip
    assert {name: found.values[name] for name in made.plan.scoring.metrics} == pytest.approx(
        dict.fromkeys(made.plan.scoring.metrics, 100.0)
    )
    assert "nrefs:2" in found.signatures["bleu"]
    assert found.cut == 1


@pytest.mark.parametrize("method", ["full", "partial", "lora", "ia3", "prefix_tuning", "prompt_tuning"])
def test_a_base_in_half_precision_is_scored_unmerged_and_leaves_weights_as_they_were(
    random_qwen2, rows, tmp_path, method
):
    words = (f"peft={method}", "model.dtype=bfloat16")
    base = load_base(plan_of(*overrides(random_qwen2, rows, tmp_path), *words)[0].model)
    made = prepared(random_qwen2, rows, tmp_path, *words, base=base)
    before = {name: each.clone() for name, each in made.model.state_dict().items()}
    equal = needs_equal_lengths(base.model, made.plan.method, made.plan.settings)
    with mock.patch.object(scoring_score, "merged", side_effect=AssertionError):
        found = score(made.model, base.tokenizer, made.rows.splits["test"], [], made.plan.scoring,
                      stops=(2,), equal_lengths=equal, seed=0)  # fmt: skip
    assert len(found.answers) == len(made.rows.splits["test"])
    assert all(torch.equal(each, before[name]) for name, each in made.model.state_dict().items())
