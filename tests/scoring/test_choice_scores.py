"""Scores of weighed options, by hand."""

import math

import pytest

from harness.config.schema import ChoiceBy, Choices
from harness.scoring.choice_scores import (
    ACCURACIES,
    Weighed,
    calibration,
    choice_scores,
    class_figures,
    needs_unconditional,
)


def weighed(logprobs, right=(0,), texts=("no", "yes"), tokens=(1, 1), unconditional=None):
    return Weighed(texts, tokens, tuple(logprobs), unconditional, frozenset(right))


# Each value chooses another option of this row, so that none can stand for another.
ROW = Weighed(
    texts=("a", "bbbb bbbb", "cc", "\u6c49\u6c49\u6c49\u6c49"),
    tokens=(1, 9, 8, 2),
    logprobs=(-1.0, -2.7, -1.6, -2.0),
    unconditional=(-0.5, -2.2, -3.0, -1.9),
    right=frozenset({1}),
)
CHOSEN = {
    ChoiceBy.raw: 0,  # -1.0
    ChoiceBy.tokens: 2,  # -1.6 / 8 = -0.2
    ChoiceBy.characters: 1,  # -2.7 / 9 = -0.3
    ChoiceBy.bytes: 3,  # -2.0 / 12 = -0.17
    ChoiceBy.unconditional: 2,  # -1.6 + 3.0
}


@pytest.mark.parametrize("by", ChoiceBy)
def test_each_value_of_by_compares_the_options_in_its_own_way(by):
    assert ROW.chosen(by) == CHOSEN[by]
    weights = ROW.weights(by)
    share = math.exp(max(weights)) / sum(map(math.exp, weights))
    assert ROW.confidence(by) == pytest.approx(share)


@pytest.mark.parametrize("name", ACCURACIES)
def test_an_accuracy_is_the_share_of_rows_whose_choice_is_right(name):
    found = choice_scores([name], [ROW], Choices(by=ChoiceBy.raw, bins=10))
    right = CHOSEN[ACCURACIES[name]] == 1
    assert found.values == {name: 100.0 * right}
    assert found.rows == {name: [100.0 * right]}
    assert f"by:{ACCURACIES[name].value}" in found.signatures[name]


def test_any_of_several_references_is_right_and_the_first_of_equal_options_is_chosen():
    found = choice_scores(["choice_acc"], [weighed((-1, -1), right=(0, 1)), weighed((-1, -1), right=(1,))],
                          Choices(by=ChoiceBy.raw, bins=10))  # fmt: skip
    assert found.values == {"choice_acc": 50.0}


def test_f1_is_the_mean_over_classes_whose_figures_are_kept():
    rows = [weighed((0, -1), (0,)), weighed((0, -1), (1,)), weighed((-1, 0), (1,)), weighed((-1, 0), (1,))]
    found = choice_scores(["choice_f1"], rows, Choices(by=ChoiceBy.raw, bins=10))
    assert found.details["classes"] == {
        "no": {"precision": 50.0, "recall": 100.0, "f1": pytest.approx(200 / 3), "rows": 1},
        "yes": {"precision": 100.0, "recall": pytest.approx(200 / 3), "f1": 80.0, "rows": 3},
    }
    assert found.values["choice_f1"] == pytest.approx((200 / 3 + 80) / 2)


def test_a_class_that_is_neither_right_nor_chosen_has_no_f1_and_options_may_stand_in_any_order():
    rows = [
        weighed((0, -1, -2), (0,), ("a", "b", "c"), (1, 1, 1)),
        weighed((-3, 0, 0), (1,), ("c", "a", "b"), (1,) * 3),
    ]
    figures = class_figures(rows, ChoiceBy.raw)
    assert {name: each["f1"] for name, each in figures.items()} == {"a": 100.0, "b": 0.0, "c": 0.0}
    with pytest.raises(ValueError, match="same options"):
        class_figures([*rows, weighed((0, -1))], ChoiceBy.raw)


def test_calibration_compares_confidence_with_accuracy_in_bins():
    sure, unsure = (0.0, math.log(1 / 3)), (0.0, math.log(9 / 11))  # confidence 0.75 and 0.55
    rows = [weighed(sure, (0,)), weighed(sure, (1,)), weighed(unsure, (0,))]
    choices = Choices(by=ChoiceBy.raw, bins=10)
    assert calibration(rows, choices) == [
        {"above": 0.5, "rows": 1, "confidence": pytest.approx(55.0), "accuracy": 100.0},
        {"above": 0.7, "rows": 2, "confidence": pytest.approx(75.0), "accuracy": 50.0},
    ]
    found = choice_scores(["choice_ece"], rows, choices)
    assert found.values["choice_ece"] == pytest.approx((45 + 2 * 25) / 3)
    assert len(calibration(rows, Choices(by=ChoiceBy.raw, bins=1))) == 1


def test_options_are_weighed_without_a_prompt_only_if_something_compares_them_so():
    raw, pmi = (Choices(by=by, bins=10) for by in (ChoiceBy.raw, ChoiceBy.unconditional))
    assert not needs_unconditional(["choice_acc"], raw)
    assert needs_unconditional(["choice_acc_pmi"], raw)
    assert needs_unconditional(["choice_f1"], pmi)
    with pytest.raises(ValueError, match="without their prompt"):
        weighed((0, 1)).weights(ChoiceBy.unconditional)
