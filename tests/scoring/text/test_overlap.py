"""Overlap scores equal published values, hand-made cases and the plain algorithms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.text.overlap import lcs_length, rouge_l, token_f1
from tests.support.answers import ANSWERS


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [  # rouge_score 0.1.2, RougeScorer(["rougeL"]), no stemming
        ("the cat sat on the mat", "the cat was sitting on the mat", 0.7692307692307692),
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1, S1 and S2
        ("the gunman kill police", "police killed the gunman", 0.5),  # S1 and S3
        (
            "Don't panic: it's only 3.5 mg, twice-daily!",
            "Do not panic; it is only 3.5mg twice daily.",
            0.5714285714,
        ),
        ("A b c", "x y z", 0.0),
        (
            "A quick brown fox jumps over the lazy dog near the river bank",
            "The quick red fox jumped over a lazy dog by the bank of the river",
            0.5,
        ),
    ],
)
def test_rouge_l_equals_rouge_score_on_english(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l(prediction, [reference], "rouge") == pytest.approx(expected)


def test_rouge_l_takes_the_best_reference_as_rouge_score_does() -> None:
    references = ["the cat", "a dog sat on the mat today"]
    assert rouge_l("the cat sat on the mat", references, "rouge") == pytest.approx(0.6153846153846153)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),  # articles, case and punctuation do not count
        ("in the year 1999", "1999", 0.5),  # precision 1/3, recall 1
        ("a cat a cat", "cat", 2 / 3),  # a bag: the second cat is surplus
        ("state-of-the-art", "state of the art", 0.0),  # SQuAD deletes the hyphens: one word
    ],
)
def test_token_f1_follows_the_squad_script(prediction: str, reference: str, expected: float) -> None:
    assert token_f1(prediction, [reference], "squad") == pytest.approx(expected)


def test_doses_with_the_same_digits_differ() -> None:
    assert token_f1("0.5", ["5.0"], "mixed") == 0


def test_texts_without_a_token_agree_only_if_equal() -> None:
    assert token_f1("……", ["……"], "mixed") == 1
    assert token_f1("？", ["！"], "mixed") == 0
    assert rouge_l("感冒", ["发热"], "rouge") == 0


@given(left=ANSWERS, right=ANSWERS, tokenizer=st.sampled_from(["mixed", "squad", "rouge", "char"]))
def test_f1_scores_are_symmetric(left: str, right: str, tokenizer: str) -> None:
    assert token_f1(left, [right], tokenizer) == token_f1(right, [left], tokenizer)
    assert rouge_l(left, [right], tokenizer) == rouge_l(right, [left], tokenizer)
    assert rouge_l(left, [right], tokenizer) <= token_f1(left, [right], tokenizer)


@given(left=st.lists(st.sampled_from("abc"), max_size=70), right=st.lists(st.sampled_from("abc"), max_size=70))
def test_bit_parallel_lcs_equals_the_table(left: list[str], right: list[str]) -> None:
    row = [0] * (len(right) + 1)
    for token in left:
        above = row
        row = [0]
        for column, other in enumerate(right):
            row.append(above[column] + 1 if token == other else max(above[column + 1], row[-1]))
    assert lcs_length(left, right) == row[-1]
