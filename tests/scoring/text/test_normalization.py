"""Normalization does the named steps, and no more."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.text.normalization import normalize


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ＡＢＣ１２３。", "ABC123"),
        ("  a \n\t b ", "a b"),
        ("小柴胡 颗粒 Ab", "小柴胡颗粒Ab"),
        ("yes.!?", "yes"),
        ("?!", "?!"),
        ("5%", "5%"),
        ("f(x)", "f(x)"),
        (" \n", ""),
    ],
)
def test_normalized_answers(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_normalization_names_an_unknown_step() -> None:
    with pytest.raises(ValueError, match=r"no step 'lower'; join nfkc, space, final, case"):
        normalize("a", "nfkc+lower")
    assert normalize(" Ａ。", "none") == " Ａ。"


@given(text=st.text(string.printable, max_size=60))
def test_answer_normalization_is_idempotent_on_printable_ascii(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)
