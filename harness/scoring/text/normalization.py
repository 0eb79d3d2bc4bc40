"""Normalization of texts before they are compared: named steps, joined by ``+``."""

import re
import string
import unicodedata
from collections.abc import Callable

# Characters that are a token each: Han (with extensions, the iteration mark and the zero), and kana.
# Escapes, because the glyphs at the ends of a range mean nothing to a reader.
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3041-\u3096\u30a1-\u30ff\u31f0-\u31ff"


_IS_HAN = re.compile(f"[{_HAN}]")


# White space beside a Chinese character is typography: models differ in it, readers do not see it.
_SPACE_AT_HAN = re.compile(rf"(?<=[{_HAN}])\s+|\s+(?=[{_HAN}])")


# Sentence ends only. Brackets, quotes and the percent sign carry meaning and stay.
_FINAL = ".。．｡!！?？;；,，、:：…"


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

    ``steps`` joins keys of ``NORMALIZATIONS`` with ``+``; ``none`` leaves the text alone.

    Raises:
        ValueError: names an unknown step.
    """
    for step in [] if steps == "none" else steps.split("+"):
        if step not in NORMALIZATIONS:
            raise ValueError(
                f"normalization={steps!r}: no step {step!r}; join {', '.join(NORMALIZATIONS)} by +, or none"
            )
        text = NORMALIZATIONS[step](text)
    return text


def has_han(text: str) -> bool:
    """Whether ``text`` holds a character that is written without spaces between words (Han or kana)."""
    return _IS_HAN.search(text) is not None
