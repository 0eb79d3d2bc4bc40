"""What an answer lists: the number that it ends in, and its items, from JSON or from lines."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from harness.scoring.text.normalization import ANSWER, normalize

_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARK = "####"  # GSM8K writes it before the result


def final_number(text: str) -> Decimal | None:
    """The number after the last ``####``, else the last number of the text; None if there is none.

    ``1,000``, ``1000`` and ``1000.0`` are the same number.
    """
    normal = normalize(text, "nfkc")
    found = _NUMBER.findall(normal.rpartition(_MARK)[2] if _MARK in normal else normal)
    if not found:
        return None
    # The first after the mark: models go on after the result.
    number = found[0] if _MARK in normal else found[-1]
    try:
        return Decimal(number.replace(",", ""))
    except InvalidOperation:
        return None


def items(text: str) -> Counter[tuple[str, str]]:
    """Pairs of place and value that an answer lists.

    Of a JSON object: each value with the names that lead to it; the order and the form of lists do not count. Of other
    text: each line, but for headings, which end in a colon. Values are normalized like those of ``exact_match``.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return Counter(_leaves(value, ""))
    lines = (line.strip() for line in text.splitlines())
    return Counter(("", normalize(line, ANSWER)) for line in lines if line and not line.endswith((":", "：")))


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, place)
    else:
        yield place, normalize(value if isinstance(value, str) else json.dumps(value), ANSWER)
