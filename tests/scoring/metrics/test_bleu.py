"""BLEU is sacrebleu's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scoring.compute import compute_metrics, load_metric


def test_jieba_bleu_names_its_tokenizer() -> None:
    text = "我来到北京清华大学，学习中医药学。"
    values, signatures = compute_metrics(["bleu"], [text], [[text]], None, "jieba")
    assert values["bleu"] == pytest.approx(100)
    assert "|tok:jieba-0." in signatures["bleu"]


@settings(max_examples=30, deadline=None)
@given(answer=st.text("小柴胡颗粒日次", min_size=4, max_size=20))
def test_identical_text_of_four_tokens_has_bleu_100(answer: str) -> None:
    assert compute_metrics(["bleu"], [answer], [[answer]], None, "zh")[0]["bleu"] == pytest.approx(100)


def test_bleu_of_right_answers_without_a_4gram_is_0_as_published() -> None:
    assert compute_metrics(["bleu"], ["板蓝根"], [["板蓝根"]], None, "zh")[0]["bleu"] == 0


def test_unknown_bleu_tokenizer_is_refused_before_it_downloads_a_model() -> None:
    with pytest.raises(ValueError, match="tokenize='flores200'"):
        load_metric("bleu").compute(predictions=["a"], references=["a"], tokenize="flores200")
