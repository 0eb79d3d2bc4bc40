"""JSON as raw rows: a list, one value per line, or values one after the other.

An object that holds a key twice is refused: JSON leaves open which of the two values counts, and a reader that picks
one drops the other silently.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.data.unreadable import Unreadable

RawRow = tuple[int, Any]  # row number from 1, parsed value or BrokenRow


@dataclass(frozen=True)
class BrokenRow:
    """In place of a row that cannot be parsed although its neighbors can."""

    reason: str


class _Decoder(json.JSONDecoder):
    """Decodes JSON and remembers the first key that one of its objects holds twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs) and self.twice is None:
            keys = [key for key, _ in pairs]
            self.twice = next(key for key in keys if keys.count(key) > 1)
        return value

    def row(self, text: str, at: int = 0) -> tuple[Any, int]:
        """The value that begins at ``at``, a BrokenRow if a key stands twice in it, and where it ends."""
        self.twice = None
        value, end = self.raw_decode(text, at)
        if self.twice is not None:
            return BrokenRow(f"its key {self.twice[:40]!r} appears twice in one object; remove one of the two"), end
        return value, end


def parse_json(text: str) -> Any:
    """One JSON value. Raises ValueError, also for a key that stands twice, or RecursionError."""
    start = _skip(text, 0)
    value, end = _Decoder().row(text, start)
    if isinstance(value, BrokenRow):
        raise ValueError(value.reason)
    if _skip(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def json_rows(text: str) -> Iterator[RawRow]:
    """Rows of a ``.json`` file: a list of rows, or what ``json_lines_rows`` reads.

    Raises:
        Unreadable: it is one object, or the list is broken.
    """
    start = text.lstrip()
    if start.startswith("["):
        return _list_rows(text)
    rows = list(_line_rows(text))
    if start.startswith("{") and any(isinstance(value, BrokenRow) for _, value in rows):
        try:
            whole = parse_json(text)
        except (ValueError, RecursionError):
            return iter(_stream_rows(text) or rows)
        raise Unreadable(_one_object(whole))
    if len(rows) == 1 and isinstance(rows[0][1], dict) and any(map(_is_rows, rows[0][1].values())):
        raise Unreadable(_one_object(rows[0][1]))
    return iter(rows)


def json_lines_rows(text: str) -> Iterator[RawRow]:
    """Rows of a ``.jsonl`` file. Three other forms are read too, because they have one meaning: a whole JSON list, a
    comma after each line, and objects written over several lines."""
    start = text.lstrip()
    if start.startswith("[") and _is_list(start):
        return _list_rows(text)
    rows = list(_line_rows(text))
    if rows and isinstance(rows[0][1], BrokenRow) and start.startswith("{"):
        return iter(_stream_rows(text) or rows)
    return iter(rows)


def _is_list(text: str) -> bool:
    """Whether text that begins with a bracket is one list rather than lists line by line."""
    first, _, rest = text.partition("\n")
    try:
        parse_json(first)
    except (ValueError, RecursionError):
        return bool(rest.strip())
    return not rest.strip() and any(isinstance(row, dict) for row in parse_json(first))


def _one_object(whole: dict[str, Any]) -> str:
    keys = ", ".join(repr(key)[:40] for key in list(whole)[:5])
    inside = next((key for key, value in whole.items() if _is_rows(value)), None)
    remedy = "write a list of rows, or one row per line"
    if inside is not None and re.fullmatch(r"\w+", inside, re.ASCII):
        remedy = f"its rows are under {inside!r}: jq '.{inside}' FILE > rows.json"
    return f"it is one JSON object (keys {keys}), not rows; {remedy}"


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) > 0 and all(isinstance(row, dict) and "role" not in row for row in value)
    )


_SPACE = re.compile(r"[ \t\r\n]*")


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string as well


def why_broken(fault: Exception) -> str:
    """What the JSON decoder met, in words."""
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, json.JSONDecodeError):
        return f"broken JSON: {fault.msg} at line {fault.lineno}, column {fault.colno}"
    return "a number with too many digits"  # json's one other ValueError: int() past its limit of digits


def _list_rows(text: str) -> Iterator[RawRow]:
    """Rows of a JSON list one by one, so that an error names its row; nothing can be read past an error."""
    decoder = _Decoder()
    at, number = _skip(text, text.index("[") + 1), 0
    while text[at : at + 1] != "]":  # also after the last comma
        number += 1
        try:
            value, at = decoder.row(text, at)
        except (ValueError, RecursionError) as fault:
            raise Unreadable(
                f"row {number}: {why_broken(fault)}; the JSON list is broken there, fix it at that place"
            ) from fault
        yield number, value
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            line = text.count("\n", 0, at) + 1
            raise Unreadable(
                f"after row {number}: no ',' or ']' at line {line}; the JSON list is broken there, fix it at that place"
            )
        at = _skip(text, at + 1)
    if text[_skip(text, at + 1) :]:
        raise Unreadable(f"text follows the end of the JSON list (after row {number}); remove it")


def _line_rows(text: str) -> Iterator[RawRow]:
    decoder = _Decoder()
    # Not splitlines: it also splits at U+2028 and similar, which may occur inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value, end = decoder.row(line, _skip(line, 0))
            rest = line[end:].strip(" \t\r")
            if rest not in ("", ","):
                raise json.JSONDecodeError("Extra data", line, _skip(line, end))
            yield number, value
        except json.JSONDecodeError as fault:
            yield number, BrokenRow(f"broken JSON: {fault.msg} at column {fault.colno}")
        except (ValueError, RecursionError) as fault:
            yield number, BrokenRow(why_broken(fault))


def _stream_rows(text: str) -> list[RawRow] | None:
    """Objects one after the other, each over several lines, numbered by position; None if there is anything else."""
    decoder = _Decoder()
    rows: list[RawRow] = []
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, at = decoder.row(text, at)
        except (ValueError, RecursionError):
            return None
        rows.append((len(rows) + 1, value))
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
    return rows
