"""Records of older schema versions brought to the newest one when they are read; the files stay as they are."""

from collections.abc import Callable
from typing import Any

SCHEMA_VERSION = 2


def upgrade(record: dict[str, Any]) -> dict[str, Any]:
    """The record in the newest shape.

    Raises:
        KeyError: the record lacks what its version requires, or is of a version that this harness does not know.
    """
    while record["schema_version"] != SCHEMA_VERSION:
        record = _STEPS[record["schema_version"]](record)
    return record


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """``times_s.tokenise`` became ``times_s.tokenize``."""
    times = {"tokenize" if name == "tokenise" else name: value for name, value in record["times_s"].items()}
    return record | {"schema_version": 2, "times_s": times}


# By the version that a step starts from; a new version adds one step here.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
