"""One row: what it holds, and the checks that accept it or say why it cannot be used."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema import Columns, Data, RowFormat
from harness.data.formats import BrokenRow, RawRow
from harness.errors import DataFault, raise_together

ROLES = ("system", "user", "assistant", "tool")
KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number"}
KINDS |= {list: "a list", dict: "an object", str: "text"}


@dataclass(frozen=True)
class Row:
    """One checked row. ``messages`` are pairs of role and content, the last of them the assistant's ``output``."""

    number: int  # in its source, from 1
    source: str  # file, or hub name and split
    instruction: str
    input: str  # "" for none
    output: str
    messages: tuple[tuple[str, str], ...]
    target: str | None  # what some metrics look for in the answer
    references: tuple[str, ...] = ()  # all texts that an answer is scored against; empty: ``output`` alone

    @property
    def all_references(self) -> tuple[str, ...]:
        """What an answer is scored against: one text or more."""
        return self.references or (self.output,)


@dataclass(frozen=True)
class BadRow:
    """A row that was read but cannot be used, and why."""

    source: str
    number: int
    reason: str


def question(instruction: str, input: str) -> str:
    """The user's turn of an instruction row, for templates that hold turns."""
    return f"{instruction}\n{input}" if input else instruction


class _Unusable(Exception):
    """Why one row cannot be used."""


def check_all(raw_rows: Sequence[RawRow], source: str, data: Data) -> tuple[list[Row], list[BadRow]]:
    """Accepted and refused rows, each in order. Raises DataFault for a column that no row has."""
    _refuse_missing_columns([value for _, value in raw_rows if isinstance(value, dict)], source, data)
    check = _messages_row if data.format is RowFormat.messages else _instruction_row
    rows, bad = [], []
    for number, value in raw_rows:
        try:
            if isinstance(value, BrokenRow):
                raise _Unusable(value.reason)
            if not isinstance(value, dict):
                raise _Unusable(f"the row is {_kind(value)}, not an object with named fields")
            rows.append(check(value, number, source, data.columns))
        except _Unusable as fault:
            bad.append(BadRow(source, number, str(fault)))
    return rows, bad


def _refuse_missing_columns(values: Sequence[dict[str, Any]], source: str, data: Data) -> None:
    """A column that no row has is a wrong setting, not many bad rows."""
    fields = ("messages",) if data.format is RowFormat.messages else ("instruction", "input", "output")
    faults = []
    for key in (*fields, "target"):
        column = getattr(data.columns, key)
        if values and column and all(_find(value, column) is _ABSENT for value in values):
            has = ", ".join(_shown(name) for name in list(values[0])[:20]) or "none"
            remedy = "name one of them" + (", or null for none" if key in ("input", "target") else "")
            faults.append(f"data.columns.{key}={column}: {source} has no such column; it has {has}; {remedy}")
    raise_together(faults, DataFault)


_ABSENT = object()


def _find(fields: dict[str, Any], column: str) -> Any:
    """The value under ``column``; without such a key, a dotted name descends (``instances.0.output``)."""
    if column in fields:
        return fields[column]
    value: Any = fields
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10 and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value


def _instruction_row(fields: dict[str, Any], number: int, source: str, columns: Columns) -> Row:
    instruction = _text(_find(fields, columns.instruction or ""), f"field {columns.instruction!r}")
    output = _text(_find(fields, columns.output or ""), f"field {columns.output!r}")
    value = _find(fields, columns.input) if columns.input else None
    # An absent or null input is how many data sets write "no input"; instruction and output must be there.
    input = "" if value in (None, "", _ABSENT) else _text(value, f"field {columns.input!r}", empty=True)
    messages = (("user", question(instruction, input)), ("assistant", output))
    return Row(number, source, instruction, input, output, messages, _target(fields, columns))


def _messages_row(fields: dict[str, Any], number: int, source: str, columns: Columns) -> Row:
    value = _find(fields, columns.messages or "")
    if isinstance(value, str):  # CSV has no lists: its column holds JSON
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _Unusable(f"field {columns.messages!r} is text that is not JSON") from None
    if value is _ABSENT:
        raise _Unusable(f"field {columns.messages!r} is missing")
    if not isinstance(value, list):
        raise _Unusable(f"field {columns.messages!r} is {_kind(value)}, not a list of messages")
    messages = tuple(_turn(turn, number) for number, turn in enumerate(value, start=1))
    if not messages or messages[-1][0] != "assistant":
        raise _Unusable("the last message is not by the assistant, so there is nothing to learn")
    if not any(role == "user" for role, _ in messages):
        raise _Unusable("no message is by the user")
    instruction, input = _flat(messages[:-1])
    return Row(number, source, instruction, input, messages[-1][1], messages, _target(fields, columns))


def _turn(turn: Any, number: int) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise _Unusable(f"message {number} is {_kind(turn)}, not an object with role and content")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _Unusable(f"message {number}: role {_shown(role)} is not one of {', '.join(ROLES)}")
    return role, _text(turn.get("content", _ABSENT), f"content of message {number}")


def _flat(history: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Instruction and input of a conversation, for templates without turns.

    A system message becomes the instruction and the rest its input; without one, the rest is the instruction. A
    single user turn is kept as it is; a longer history becomes a transcript with the roles' names.
    """
    system = "\n".join(content for role, content in history if role == "system")
    turns = [(role, content) for role, content in history if role != "system"]
    spoken = [f"{role.capitalize()}: {content}" for role, content in turns]
    text = turns[0][1] if len(turns) == 1 else "\n".join(spoken)
    return (system, text) if system else (text, "")


def _target(fields: dict[str, Any], columns: Columns) -> str | None:
    return _text(_find(fields, columns.target), f"field {columns.target!r}") if columns.target else None


def _text(value: Any, what: str, empty: bool = False) -> str:
    if value is _ABSENT:
        raise _Unusable(f"{what} is missing")
    if not isinstance(value, str):
        raise _Unusable(f"{what} is {_kind(value)}, not text")
    if not empty and not value.strip():
        raise _Unusable(f"{what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as fault:
        raise _Unusable(f"{what} is not valid UTF-8 (at character {fault.start + 1})") from None
    return value


def _kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    return KINDS.get(type(value), f"of type {type(value).__name__}")


def _shown(value: Any) -> str:
    """A name from the data for an error message: short, and printable whatever it contains."""
    text = value if isinstance(value, str) else _kind(value)
    return (repr(text) if not text.isprintable() else text)[:40]
