"""Scores of one text against another, as pure functions of strings: no torch, no files, no state.

Every row score here lies in 0..1; the metric modules in ``harness/metrics`` average them and publish percent.
The definitions, with their sources, are set out in ``docs/metrics.md``.
"""

import re
import string
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

# Characters that are a token each: Han (with extensions, the iteration mark and the zero), and kana.
# Escapes, because the glyphs of a range's ends mean nothing to a reader.
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3041-\u3096\u30a1-\u30ff\u31f0-\u31ff"


_IS_HAN = re.compile(f"[{_HAN}]")


# White space beside a Chinese character is typography: models differ in it, readers do not see it.
_SPACE_AT_HAN = re.compile(rf"(?<=[{_HAN}])\s+|\s+(?=[{_HAN}])")


# Sentence ends only. Brackets, quotes and the percent sign carry meaning and stay.
_FINAL = ".。．｡!！?？;；,，、:：…"


_ARTICLES = re.compile(r"\b(a|an|the)\b")


_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


ANSWER = "nfkc+space+final"


NAME = "nfkc+space+case"


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _space(text: str) -> str:
    return _SPACE_AT_HAN.sub("", " ".join(text.split()))


def _final(text: str) -> str:
    # A text of nothing but punctuation stays: otherwise "?" would equal "!".
    return text.rstrip(_FINAL + string.whitespace) or text


def _case(text: str) -> str:
    return _nfkc(text.casefold())


NORMALIZATIONS: dict[str, Callable[[str], str]] = {
    "nfkc": _nfkc,  # full-width letters become half-width; ligatures and unit signs are spelled out
    "space": _space,  # white space becomes one blank; none at the ends, none beside a Chinese character
    "final": _final,  # punctuation that ends a sentence is dropped from the end
    "case": _case,  # case folding
}


def normalize(text: str, steps: str = ANSWER) -> str:
    """``text`` after the named steps, left to right.

    ``steps`` joins keys of ``NORMALISATIONS`` with ``+``; ``none`` leaves the text alone. ``ValueError``
    names an unknown step.
    """
    for step in [] if steps == "none" else steps.split("+"):
        if step not in NORMALIZATIONS:
            raise ValueError(
                f"normalisation={steps!r}: no step {step!r}; join {', '.join(NORMALIZATIONS)} by +, or none"
            )
        text = NORMALIZATIONS[step](text)
    return text


def has_han(text: str) -> bool:
    """Whether ``text`` holds a character that is written without spaces between words (Han or kana)."""
    return _IS_HAN.search(text) is not None


# ---------------------------------------------------------------- tokens


def _mixed(text: str) -> list[str]:
    text = normalize(text, "nfkc+case")
    tokens: list[str] = []
    word = ""
    for here, char in enumerate(text):
        kind = "han" if _IS_HAN.match(char) else unicodedata.category(char)[0]
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
def _jieba() -> Any:
    import jieba

    jieba.setLogLevel("WARNING")
    # An instance of our own: a user dictionary loaded elsewhere in the process must not move scores. It reads
    # no cache from the shared temporary folder, where another user's or an older dictionary's may lie.
    words = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        words.tmp_dir = scratch
        words.initialize()
    return words


def jieba_words(text: str) -> list[str]:
    """Words of jieba's default dictionary, HMM on, as written; white space is dropped, punctuation stays."""
    return [word for word in _jieba().lcut(text) if not word.isspace()]


def _jieba_content(text: str) -> list[str]:
    # Folded after cutting: the dictionary knows words such as "T恤" in their usual case.
    words = [_case(word) for word in jieba_words(_nfkc(text))]
    return [word for word in words if any(unicodedata.category(char)[0] in "LNS" for char in word)]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "mixed": _mixed,
    "squad": _squad,
    "rouge": _rouge,
    "char": _char,
    "jieba": _jieba_content,
}


def tokenize_text(text: str, how: str) -> list[str]:
    """Tokens of ``text``; never an empty one.

    mixed  NFKC, case folded; each Han or kana character and each symbol is a token, so is each run of other
           letters, digits and marks; ``.`` and ``,`` inside a number belong to it; punctuation is dropped
    squad  SQuAD 1.1's script: lower case, ASCII punctuation and English articles deleted, split at spaces
    rouge  rouge_score's default without stemming: runs of ``[a-z0-9]`` of the lower-cased text, nothing else
    char   NFKC, case folded; every character but white space, punctuation included
    jieba  jieba's words of the NFKC text, then case folded; those made of punctuation dropped
    """
    if how not in TOKENIZERS:
        raise ValueError(f"tokenise how={how!r}: choose one of {', '.join(TOKENIZERS)}")
    return TOKENIZERS[how](text)


def tokenizer_version(how: str) -> str:
    """The tokeniser as a signature names it; jieba with the version that its dictionary comes in."""
    if how != "jieba":
        return how
    import jieba

    return f"jieba-{jieba.__version__}"


# ---------------------------------------------------------------- counts


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): one row of the dynamic
    programme is one long integer, so two texts of 2,000 tokens take about a millisecond.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full  # a zero bit at column i: the common subsequence grows by one there
    for token in right:
        hits = row & places.get(token, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(left) - row.bit_count()


def bag_overlap(left: Iterable[str], right: Iterable[str]) -> int:
    """How many tokens two texts share, each counted as often as both have it."""
    return (Counter(left) & Counter(right)).total()


def f1(common: int, left: int, right: int) -> float:
    """Harmonic mean of ``common/left`` and ``common/right``; 0 where either side is empty."""
    return 2 * common / (left + right) if left and right else 0.0


# ---------------------------------------------------------------- scores of a row


def _f1_of(prediction: str, reference: str, how: str, common: Callable[[list[str], list[str]], int]) -> float:
    left, right = tokenize_text(prediction, how), tokenize_text(reference, how)
    if not left and not right:
        # Both without content, or in a script this tokeniser drops: only equal texts agree.
        return float(normalize(prediction, "nfkc+space") == normalize(reference, "nfkc+space"))
    return f1(common(left, right), len(left), len(right))


def exact_match(prediction: str, references: Sequence[str], steps: str = ANSWER) -> float:
    """1.0 if the normalised prediction equals any normalised reference, else 0.0."""
    said = normalize(prediction, steps)
    return float(any(said == normalize(reference, steps) for reference in references))


def token_f1(prediction: str, references: Sequence[str], how: str = "mixed") -> float:
    """Best bag-of-tokens F1 over the references (Rajpurkar et al. 2016, SQuAD, section 6.1)."""
    return max(_f1_of(prediction, reference, how, bag_overlap) for reference in references)


def rouge_l(prediction: str, references: Sequence[str], how: str = "mixed") -> float:
    """Best sentence-level ROUGE-L F1 over the references (Lin 2004, section 3.1, equations 2-4, beta 1)."""
    return max(_f1_of(prediction, reference, how, lcs_length) for reference in references)


# ---------------------------------------------------------------- names

NameIndex = dict[str, list[str]]


def name_index(names: Iterable[str]) -> NameIndex:
    """Names, normalised by ``NAME``, under their first character, longest first; blank ones are left out."""
    index: NameIndex = {}
    known = {normalize(name, NAME) for name in names} - {""}
    for name in sorted(known, key=lambda name: (-len(name), name)):
        index.setdefault(name[0], []).append(name)
    return index


def _in_word(left: str, right: str) -> bool:
    # Both sides letters or digits of a script that puts spaces between words: no word ends between them.
    return left.isalnum() and right.isalnum() and not has_han(left + right)


def first_named(text: str, index: NameIndex) -> str | None:
    """The name, normalised by ``NAME``, that ``text`` mentions first; None if it mentions none.

    Leftmost, then longest: at the earliest place where a name starts, the longest that fits there. In scripts
    with spaces a name is whole words: "iron" does not occur in "environment".
    """
    text = normalize(text, NAME)
    for start, char in enumerate(text):
        for name in index.get(char, ()):
            if not text.startswith(name, start):
                continue
            after = text[start + len(name) : start + len(name) + 1]
            if not _in_word(text[start - 1 : start], char) and not _in_word(name[-1], after):
                return name
    return None


def names_target(prediction: str, target: str, index: NameIndex) -> float:
    """1.0 if the first name of ``index`` in ``prediction`` is ``target``, else 0.0."""
    return float(first_named(prediction, index) == normalize(target, NAME))
