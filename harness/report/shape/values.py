"""What the values of records mean in a rule. Imports no numpy."""

import math
from typing import Any

from harness.scoring.catalog import SCORES

VALIDATION = "validation_loss"  # the score by which a rate is chosen


def lower_is_better(metric: str) -> bool:
    """Whether smaller values of this score are better."""
    return SCORES[metric].lower_is_better


def equal(one: Any, other: Any) -> bool:
    """Whether a record's value is that of a condition; of lists of names only the set matters."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other)
    return bool(one == other)
