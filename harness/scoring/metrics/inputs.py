"""Shared by the metric modules: read rows, check them, average them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any


def reference_lists(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """References as one list per row, from either form that the modules accept.

    An empty string is a reference like any other.

    Raises:
        ValueError: there is no row, or a row has no reference, so that the score is undefined.
    """
    if not len(references):
        raise ValueError("references: 0 rows; there is nothing to score")
    lists = [[row] if isinstance(row, str) else list(row) for row in references]
    empty = [row for row, options in enumerate(lists) if not options]
    if empty:
        raise ValueError(f"references[{empty[0]}] is empty ({len(empty)} such rows); give each row one or more texts")
    return lists


def reference_count(references: Sequence[Sequence[str]]) -> str:
    """References per row as a signature names them: a number, or ``var`` if rows differ."""
    counts = {len(options) for options in references}
    return str(counts.pop()) if len(counts) == 1 else "var"


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """References transposed for sacrebleu: stream k holds the k-th one of each row, None if a row has fewer."""
    # Any: sacrebleu documents None here, but its annotations omit it.
    most = max(len(options) for options in references)
    return [[options[k] if k < len(options) else None for options in references] for k in range(most)]


def percent(scores: Iterable[float]) -> float:
    """Mean of row scores (0..1), times 100."""
    listed = list(scores)
    return 100 * math.fsum(listed) / len(listed)


def percents(scores: Iterable[float]) -> list[float]:
    """Row scores (0..1), times 100."""
    return [100 * score for score in scores]


def text_features() -> list[Any]:
    """The two input formats of a text metric: several references per row, or one."""
    import datasets

    one = datasets.Value("string")
    return [
        datasets.Features({"predictions": one, "references": datasets.List(one)}),
        datasets.Features({"predictions": one, "references": one}),
    ]
