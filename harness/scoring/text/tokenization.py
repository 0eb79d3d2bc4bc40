"""Tokens of a text, as the overlap metrics count them. The definitions are in ``docs/metrics.md``."""

import re
import string
import tempfile
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from harness.scoring.text.normalization import has_han, normalize

_ARTICLES = re.compile(r"\b(a|an|the)\b")


_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _mixed(text: str) -> list[str]:
    text = normalize(text, "nfkc+case")
    tokens: list[str] = []
    word = ""
    for here, char in enumerate(text):
        kind = "han" if has_han(char) else unicodedata.category(char)[0]
        # Marks extend a word (Hindi vowels, accents); alone they are debris of an emoji.
        extends = kind in "LN" or (kind == "M" and word)
        # "0.5" and "1,000" are one number each: split, "0.5" and "5.0" would be the same bag of tokens.
        in_number = char in ".," and text[here - 1 : here].isdigit() and text[here + 1 : here + 2].isdigit()
        if extends or (word and in_number):
            word += char
            continue
        if word:
            tokens.append(word)
            word = ""
        if kind in ("han", "S"):  # symbols, emoji among them, are content; punctuation is not
            tokens.append(char)
    return [*tokens, word] if word else tokens


def _squad(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_DELETE_PUNCTUATION)).split()


def _rouge(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _char(text: str) -> list[str]:
    return [char for char in normalize(text, "nfkc+case") if not char.isspace()]


@cache
def jieba_dictionary() -> Any:
    """jieba with its default dictionary, loaded once per process; nothing is left on disk."""
    import jieba

    jieba.setLogLevel("WARNING")
    # An instance of our own: a user dictionary loaded elsewhere in the process must not change scores. It reads
    # no cache from the shared temporary folder, where another user's or an older dictionary's may lie.
    dictionary = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        dictionary.tmp_dir = scratch
        dictionary.initialize()
    return dictionary


def jieba_words(text: str) -> list[str]:
    """Words of jieba's default dictionary, HMM on, as written; white space is dropped, punctuation stays."""
    return [word for word in jieba_dictionary().lcut(text) if not word.isspace()]


def _jieba_content(text: str) -> list[str]:
    # Folded after cutting: the dictionary knows words such as "T恤" in their usual case.
    words = [normalize(word, "case") for word in jieba_words(normalize(text, "nfkc"))]
    return [word for word in words if any(unicodedata.category(char)[0] in "LNS" for char in word)]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "mixed": _mixed,
    "squad": _squad,
    "rouge": _rouge,
    "char": _char,
    "jieba": _jieba_content,
}


def tokenize_text(text: str, tokenizer: str) -> list[str]:
    """Tokens of ``text``; never an empty one.

    mixed  NFKC, case folded; each Han or kana character and each symbol is a token, so is each run of other
           letters, digits and marks; ``.`` and ``,`` inside a number belong to it; punctuation is dropped
    squad  SQuAD 1.1's script: lower case, ASCII punctuation and English articles deleted, split at spaces
    rouge  rouge_score's default without stemming: runs of ``[a-z0-9]`` of the lower-cased text, nothing else
    char   NFKC, case folded; every character but white space, punctuation included
    jieba  jieba's words of the NFKC text, then case folded; those made of punctuation dropped

    Raises:
        ValueError: there is no such tokenizer.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer={tokenizer!r} is unknown; choose one of {', '.join(TOKENIZERS)}")
    return TOKENIZERS[tokenizer](text)


def tokenizer_version(tokenizer: str) -> str:
    """The tokenizer as a signature names it; jieba with its version, because the dictionary comes with it."""
    if tokenizer != "jieba":
        return tokenizer
    import jieba

    return f"jieba-{jieba.__version__}"
