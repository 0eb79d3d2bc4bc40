"""Values of a row as they were parsed, and why one cannot be used."""

from typing import Any

ABSENT = object()
KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number"}
KINDS |= {list: "a list", dict: "an object", str: "text"}


class Unusable(Exception):
    """Why one row cannot be used."""


def text_of(value: Any, what: str, empty: bool = False) -> str:
    """The value if it is text, with more than white space unless ``empty``; Unusable, naming ``what``, if not."""
    if value is ABSENT:
        raise Unusable(f"{what} is missing")
    if not isinstance(value, str):
        raise Unusable(f"{what} is {kind_of(value)}, not text")
    if not empty and not value.strip():
        raise Unusable(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as fault:
        raise Unusable(f"{what} is not valid UTF-8 (at character {fault.start + 1})") from None
    return value


def is_blank(value: Any) -> bool:
    """Null, or an empty text, list or object: how files write that a field is not there."""
    return value is None or value in ("", [], {})


def kind_of(value: Any) -> str:
    """What a value is, in the words of JSON."""
    return KINDS.get(type(value), f"of type {type(value).__name__}")


def shown(value: Any) -> str:
    """A name from the data for an error message: short, and printable whatever it contains."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:40]
    text = value if isinstance(value, str) else kind_of(value)
    return (repr(text) if not text.isprintable() else text)[:40]
