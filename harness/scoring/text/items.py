"""What an answer lists: its items, from JSON or from lines."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.scoring.text.normalization import ANSWER, normalize


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
