"""The script that a data set's outputs are written in, from which ``scoring.tokenize=auto`` takes its tokenizer."""

import itertools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from harness.config.schema import Data
from harness.data.dataset import read_raw
from harness.data.rows import check_all
from harness.errors import DataFault

LOOKED_AT = 1000  # rows of each source: enough for a share, and quick
SHARE = 0.2  # of the words of all outputs: less of a script are names and quotations


def output_script(data: Data, sha256: str | None) -> str:
    """``latin``, ``han`` (Chinese and Japanese), ``unspaced`` (Thai, Khmer, ...) or ``other``; see ``script_of``.

    Looks at the first rows of each source, once per process; rows that cannot be used say nothing.

    Args:
        sha256: of the local files; None for a data set on the hub.

    Raises:
        DataFault: a source cannot be read.
    """
    return _look(
        _Source(data, repr((sha256, data.path, data.revision, data.subset, data.splits, data.columns, data.format)))
    )


def script_of(texts: Iterable[str]) -> str:
    """The script that decides how these texts are cut into tokens.

    A Han or kana character counts as a word, and so does each run of other letters. ``han`` and ``unspaced`` need a
    fifth of the words, because a tokenizer for spaced scripts would drop or join them; ``other`` (Cyrillic, Arabic,
    Hangul, ...) needs a fifth too, because the published English tokenizers drop what is not a-z.
    """
    counts = dict.fromkeys(("latin", "han", "unspaced", "other"), 0)
    for text in texts:
        former = ""
        for char in text:
            kind = _kind(char)
            if kind and (kind in ("han", "unspaced") or kind != former):
                counts[kind] += 1
            # Marks and apostrophes stay inside the word that they are in.
            former = kind or (former if unicodedata.category(char)[0] == "M" or char in "'’" else "")
    total = sum(counts.values())
    return next((kind for kind in ("han", "unspaced", "other") if total and counts[kind] >= SHARE * total), "latin")


# Scripts that put no space between words, by the first word of their characters' Unicode names.
_UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE")
_HAN = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "IDEOGRAPHIC")


@lru_cache(maxsize=8192)
def _kind(char: str) -> str:
    """The kind of a letter's script; "" for digits, signs and spaces, which all scripts share."""
    if not unicodedata.category(char).startswith("L"):
        return ""
    if char.isascii():
        return "latin"
    script = unicodedata.name(char, "?").split()[0].partition("-")[0]
    if script in _HAN:
        return "han"
    return "unspaced" if script in _UNSPACED else "latin" if script in ("LATIN", "FULLWIDTH") else "other"


@dataclass(frozen=True)
class _Source:
    """Where rows come from; equal if the rows are."""

    data: Data = field(compare=False)
    key: str


@lru_cache(maxsize=64)
def _look(source: _Source) -> str:
    texts: list[str] = []
    for name, rows in itertools.chain.from_iterable(read_raw(source.data, None).values()):
        try:
            checked = check_all(rows[:LOOKED_AT], name, source.data)
        except DataFault:  # a column that no row has: the run itself says it better
            continue
        texts += [text for row in checked.rows for text in row.all_references]
    return script_of(texts)
