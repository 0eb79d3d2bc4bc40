#!/usr/bin/env python
"""Write the tables of docs/metrics.md from the catalog of scores.

python scripts/docs/metrics_table.py           # rewrites the sections between the markers
python scripts/docs/metrics_table.py --check   # writes nothing, exits with 1 if a section is stale
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from sections import row, update

from harness.scoring.catalog import BUILT_IN, TOKENIZE

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/metrics.md"


def main() -> int:
    """Rewrite the sections, or report which are stale."""
    sections = ((PAGE, "scores", scores()), (PAGE, "tokenizers", tokenizers()))
    return update(ROOT, sections, "scripts/docs/metrics_table.py", __doc__)


def scores() -> Iterator[str]:
    """Lines of the table of all scores."""
    yield row("score", "what it is", "better", "unit", "aggregation", "compares answers with")
    yield row(*["---"] * 6)
    for name, score in BUILT_IN.items():
        better = "lower" if score.lower_is_better else "higher"
        yield row(f"`{name}`", score.description, better, score.unit, score.aggregation, score.needs or "–")


def tokenizers() -> Iterator[str]:
    """Lines of the table of what each value of ``scoring.tokenize`` means to a metric."""
    tokenizing = {name: score.tokenizers for name, score in BUILT_IN.items() if score.tokenizers}
    yield row("`tokenize`", *(f"`{name}`" for name in tokenizing), "for")
    yield row(*["---"] * (len(tokenizing) + 2))
    for value, purpose in TOKENIZE.items():
        yield row(f"`{value}`", *(f"`{tokenizer[value]}`" for tokenizer in tokenizing.values()), purpose)


if __name__ == "__main__":
    sys.exit(main())
