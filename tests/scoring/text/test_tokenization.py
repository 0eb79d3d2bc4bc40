"""Each tokenizer gives the tokens of its definition."""

from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.text.tokenization import TOKENIZERS, tokenize_text
from tests.support.answers import ANSWERS


def test_mixed_tokens_are_characters_in_chinese_and_words_elsewhere() -> None:
    text = "服用0.5g 小柴胡颗粒，Ｔｗｉｃｅ/天。हिन्दी 😀1,000"
    expected = ["服", "用", "0.5g", "小", "柴", "胡", "颗", "粒", "twice", "天", "हिन्दी", "😀", "1,000"]
    assert tokenize_text(text, "mixed") == expected


def test_jieba_tokens_are_words() -> None:
    assert tokenize_text("我来到北京清华大学。T恤", "jieba") == ["我", "来到", "北京", "清华大学", "t恤"]


def test_user_dictionary_of_the_process_does_not_change_tokens() -> None:
    import jieba

    before = tokenize_text("来到北京清华大学", "jieba")
    try:
        jieba.add_word("北京清华大学", freq=10**9)
        assert tokenize_text("来到北京清华大学", "jieba") == before
    finally:
        jieba.del_word("北京清华大学")


@given(text=ANSWERS, tokenizer=st.sampled_from(list(TOKENIZERS)))
def test_no_token_is_empty_or_blank(text: str, tokenizer: str) -> None:
    assert all(token and not token.isspace() for token in tokenize_text(text, tokenizer))
