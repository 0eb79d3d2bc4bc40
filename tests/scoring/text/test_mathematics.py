"""The answers that solutions end in."""

import json
import re
from decimal import Decimal
from fractions import Fraction

import pytest

from harness.scoring.text.mathematics import final_answer, final_number, number, same_answer, same_value
from tests.support.paths import SHARED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5+3=8\n#### 1,234", "1234"),
        ("#### 7 apples, because 3+4=7, not 8", "7"),
        ("#### 7\n#### 9", "9"),
        ("It is 3 or 4.5.", "4.5"),
        ("so $-12.", "-12"),
        ("so -$12.", "-12"),
        ("答案是８０", "80"),
        ("100.0", "100"),
        ("They are 1, 2, 3", "3"),
        ("10-5", "5"),
        ("that is \u22125 degrees", "-5"),
        (r"Thus \boxed{1{,}000} dollars, not 7", "1000"),
        (r"\boxed{\$1,000} and \boxed{42 \text{ km}}", "42"),
        (r"it is \boxed 6", "6"),
        ("about 1\u202f250 km", "1250"),
        (r"$12\,500$", "12500"),
        ("50%", "50"),
        ("a share of .25", "0.25"),
    ],
)
def test_the_final_number_is_the_marked_one_or_the_last(text: str, expected: str) -> None:
    assert final_number(text) == Decimal(expected)


def test_a_text_without_a_number_has_none() -> None:
    assert final_number("none") is None
    assert final_number("3 apples: #### none") is None
    assert final_number("") is None


@pytest.mark.skipif(not (SHARED / "data/gsm8k").is_dir(), reason="needs the rows of GSM8K")
def test_the_final_number_is_that_of_the_published_script_on_every_row_of_gsm8k() -> None:
    published = re.compile(r"#### (\-?[0-9\.\,]+)")  # ANS_RE of github.com/openai/grade-school-math, dataset.py
    for name in ("train", "test"):
        lines = (SHARED / f"data/gsm8k/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines:
            answer = json.loads(line)["answer"]
            match = published.search(answer)
            assert match is not None
            assert final_number(answer) == Decimal(match[1].replace(",", "")), answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac12", Fraction(-1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"1.5\times10^{3}", Fraction(1500)),
        ("2e3", Fraction(2000)),
        ("1/0", None),
        ("1.2.3/4", None),
        ("9e999999999", None),
        ("x+1", None),
    ],
)
def test_a_number_is_read_by_its_exact_value(text: str, value: Fraction | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000.0"),
        (r"\$1{,}000", "1000 dollars"),
        ("0.5", r"\frac{1}{2}"),
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"50\%", "50%"),
        (r"42\text{ cm}^2", "42"),
        ("x=5", "5"),
        (r"90^\circ", "90"),
        (r"\left(1, 2\right)", "(1,2)"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"\text{Monday}", "monday"),
        ("$7$", "7"),
        ("3 公里", "3"),
    ],
)
def test_answers_are_compared_by_value_or_in_one_spelling(one: str, other: str) -> None:
    assert same_value(one, other)
    assert same_value(other, one)


@pytest.mark.parametrize(("one", "other"), [("1,000", "1"), ("x", "y"), ("", ""), ("1/2", "0.51"), ("(1,2)", "(2,1)")])
def test_other_answers_are_told_apart(one: str, other: str) -> None:
    assert not same_value(one, other)


def test_the_stated_answer_is_marked_boxed_or_said() -> None:
    assert final_answer("so\n#### 18\nmore") == "18"
    assert final_answer(r"\boxed{\frac{1}{2}} after \boxed{x^{2}}.") == "x^{2}"
    assert final_answer(r"cut: \boxed{12") == "12"
    assert final_answer("The answer is x + 1.\nNow 7") == "x + 1"
    assert final_answer("we get 3 and 4") == "4"
    assert same_answer(r"Hence \boxed{\tfrac{1}{2}}", "It is\n#### 0.5")
    assert not same_answer("no idea", "#### 5")
