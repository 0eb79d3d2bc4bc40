"""What a claim's result says: the line after each pair, the paragraph, ``claim.json``."""

from dataclasses import replace

import pytest

from harness.config.schema import Relation
from harness.report.claims import paragraph, progress
from tests.support.claims import CLEAR, arm, result_of


def test_a_lower_loss_and_a_higher_accuracy_are_advantages():
    assert result_of(CLEAR).verdict.value == "refuted"
    assert result_of([-each for each in CLEAR]).verdict.value == "supported"
    assert result_of(CLEAR, "exact_match").verdict.value == "supported"


def test_the_paragraph_has_question_tuning_pairs_answer_and_cost():
    text = paragraph(result_of(CLEAR, "exact_match", stopped="supported"))
    assert "We tested whether lora is better than ia3 on exact_match (percent, higher is better) for tiny" in text
    assert "the learning rate was the best of 3 by exact_match on the validation rows, with seed 0" in text
    assert "5 pairs of runs, the two of a pair with one fresh seed (1 to 5)" in text
    assert "takes the differences as independent and normal" in text
    assert "The mean difference was 1 point in favor of lora (95 % confidence sequence" in text
    assert "the claim is supported for these rows and this model" in text
    assert text.endswith("All of it took 16 runs and 5 min of computing.")
    assert "edge" not in text


def test_the_paragraph_names_the_margin_and_why_a_claim_is_undecided():
    found = result_of([0.1, -0.1, 0.05], relation=Relation.equal, margin=0.01, stopped="claim.budget.runs=12 is spent")
    text = paragraph(found)
    assert "are equal within 0.01" in text
    assert "the claim is undecided (claim.budget.runs=12 is spent)" in text
    assert "by more than 0.2" in paragraph(result_of(CLEAR, margin=0.2))


def test_the_paragraph_warns_of_a_rate_at_the_edge_of_those_tried():
    found = replace(result_of(CLEAR), better=arm("lora", 0.003))
    assert "The rate of lora is at the edge of those tried" in paragraph(found)


def test_the_paragraph_says_how_equal_sizes_are():
    found = result_of(CLEAR)
    counted = replace(found, better=replace(found.better, trainable=1000), than=replace(found.than, trainable=1040))
    assert "They train about as many parameters (lora 1,000, ia3 1,040)." in paragraph(counted)
    sized = replace(
        found, better=replace(found.better, budget="lora.r=4 makes 9"), than=replace(found.than, budget="b")
    )
    assert "Their sizes follow from one budget (lora.r=4 makes 9; b)." in paragraph(sized)
    assert sized.to_plain()["arms"]["than"]["budget"] == "b"


def test_a_result_without_pairs_is_undecided():
    found = result_of([])
    assert found.to_plain()["verdict"] == "undecided"
    assert (found.to_plain()["estimate"], found.to_plain()["interval"]) == (None, None)
    assert "No pair has been judged yet" in paragraph(found)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([1.0], "the first pair forecasts nothing"),
        ([1.0, 1.1], "about 3 more pairs expected (no verdict before pair 5)"),
        ([1.0, 1.0], "all pairs differ by the same amount"),
        ([1.0, -1.0, 1.0, -1.0], "no verdict in sight"),
        (CLEAR, "; supported"),
    ],
)
def test_the_line_after_a_pair_says_how_many_more_are_expected(differences, said):
    assert said in progress(result_of(differences, "exact_match"))


def test_claim_json_counts_pairs_and_cost_and_lists_the_runs():
    content = result_of(CLEAR, "exact_match").to_plain()
    assert (content["pairs"], content["cost"]["runs"], content["cost"]["tuning_runs"]) == (5, 16, 4)
    assert [each["difference"] for each in content["runs"]] == pytest.approx(CLEAR)
    assert content["runs"][0]["fingerprints"] == ["a", "b"]
    assert content["claim"]["text"] == "peft=lora > peft=ia3 on exact_match"
    assert content["test"]["alpha"] == 0.05
    assert content["expected_pairs"] == 0
