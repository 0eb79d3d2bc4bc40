"""One row: what it holds, and the checks that accept it or say why it cannot be used."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.config.schema import Columns, Data, RowFormat
from harness.data.json_rows import BrokenRow, RawRow
from harness.data.messages import Message, conversation, tools_of, trained_turns
from harness.data.values import ABSENT, Unusable, is_blank, kind_of, shown, text_of
from harness.errors import DataFault, first_line, raise_together
from harness.extensions import imports


@dataclass(frozen=True)
class Row:
    """One checked row. The last of ``messages`` is the assistant's ``output``."""

    number: int  # in its source, from 1
    source: str  # file, or hub name and split
    instruction: str
    input: str  # "" for none
    output: str
    messages: tuple[Message, ...]
    target: str | None  # what some metrics look for in the answer
    references: tuple[str, ...] = ()  # all texts that an answer is scored against; empty: ``output`` alone
    tools: tuple[Any, ...] = field(default=(), hash=False)  # that the assistant may call, for chat templates
    options: tuple[str, ...] = ()  # texts that an answer may be, its references among them; empty: any text
    kept: Mapping[str, Any] = field(default_factory=dict, hash=False)  # further columns, by data.columns.keep
    weight: float = 1.0  # in training, relative to other rows
    rejected: str | None = None  # an answer that is worse than the output, for preferences

    @property
    def all_references(self) -> tuple[str, ...]:
        """What an answer is scored against: one text or more."""
        return self.references or (self.output,)

    def pairs(self) -> "list[Row]":
        """One row for each reference."""
        return [self.answered(text) for text in self.references] if self.references else [self]

    def answered(self, text: str) -> "Row":
        """The row with this output, as its only reference."""
        last = replace(self.messages[-1], content=text)
        return replace(self, output=text, messages=(*self.messages[:-1], last), references=())

    def turns(self) -> "list[Row]":
        """One row for each turn by the assistant that may be trained, up to that turn; the last is this row."""
        return [*(_up_to(self, at) for at in trained_turns(self.messages)[:-1]), self]


def with_references(row: Row, texts: Sequence[str]) -> Row:
    """The row with these references, each once; the first is its output."""
    different = tuple(dict.fromkeys(texts))
    return replace(row.answered(different[0]), references=different if len(different) > 1 else ())


def _up_to(row: Row, at: int) -> Row:
    messages = row.messages[: at + 1]
    instruction, input = flat_history(messages[:-1])
    return replace(row, instruction=instruction, input=input, output=messages[-1].content, messages=messages)


@dataclass(frozen=True)
class BadRow:
    """A row that was read but cannot be used, and why."""

    source: str
    number: int
    reason: str


@dataclass(frozen=True)
class Checked:
    """Accepted and refused rows of one source, each in order, and what a reader must know about them."""

    rows: list[Row]
    bad: list[BadRow]
    notes: list[str]


def question(instruction: str, input: str) -> str:
    """The user's turn of an instruction row, for templates that hold turns."""
    return f"{instruction}\n{input}" if input else instruction


def check_all(raw_rows: Sequence[RawRow], source: str, data: Data) -> Checked:
    """Every row, accepted or refused. Raises DataFault for a column that no row has."""
    convert = own_format(data.format)
    if convert is not None:
        raw_rows = [(number, _converted(value, convert, data.format)) for number, value in raw_rows]
    values = [value for _, value in raw_rows if isinstance(value, dict)]
    _refuse_missing_columns(values, source, data)
    rows, bad = [], []
    for number, value in raw_rows:
        try:
            if isinstance(value, BrokenRow):
                raise Unusable(value.reason)
            if not isinstance(value, dict):
                raise Unusable(f"the row is {kind_of(value)}, not an object with named fields")
            check = _messages_row if _holds_messages(value, data) else _instruction_row
            check = _preference_row if data.format is RowFormat.preference else check
            row = check(value, number, source, data)
            weight = _weight(value, data.columns.weight)
            rows.append(replace(row, kept=_kept(value, data.columns), weight=weight))
        except Unusable as fault:
            bad.append(BadRow(source, number, str(fault)))
    return Checked(rows, bad, _unread_columns(values, source, data))


def own_format(format: str) -> Callable[[dict[str, Any]], Any] | None:
    """The user's own function that converts rows; None for a built-in format."""
    return imports.load("data.format", format) if imports.is_import_path(format) else None


def _converted(value: Any, convert: Callable[[dict[str, Any]], Any], path: str) -> Any:
    """What a row becomes; a row that the function refuses with a ValueError is a bad row with its reason."""
    if not isinstance(value, dict):
        return value
    try:
        made = convert(dict(value))
    except ValueError as error:
        return BrokenRow(str(error) or f"{path} refuses it")
    except Exception as error:  # whatever a function of others raises
        return BrokenRow(f"{path} fails on it ({first_line(error)})")
    if not isinstance(made, dict):
        return BrokenRow(f"{path} returns {imports.shown(made)}, not a dict of instruction, input and output")
    return made


def _holds_messages(value: dict[str, Any], data: Data) -> bool:
    if imports.is_import_path(data.format):
        return data.columns.messages is not None and data.columns.messages in value
    return data.format is RowFormat.messages


def _kept(fields: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The row's values of the further columns; None if it lacks one."""
    found = {name: _find(fields, name) for name in columns.keep}
    return {name: None if value is ABSENT else value for name, value in found.items()}


def _weight(fields: dict[str, Any], column: str | None) -> float:
    """The row's weight; 1 if it has none."""
    value = ABSENT if column is None else _find(fields, column)
    if value in (ABSENT, None, ""):
        return 1.0
    try:
        weight = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise Unusable(f"field {column!r} is {shown(value)}, not a weight above 0; leave out such rows")
    return weight


def _refuse_missing_columns(values: Sequence[dict[str, Any]], source: str, data: Data) -> None:
    """A column that no row has is a wrong setting, not many bad rows."""
    fields: tuple[str, ...] = ("instruction", "input", "output")
    fields = ("messages",) if data.format is RowFormat.messages else fields
    fields = () if imports.is_import_path(data.format) else fields  # it may make rows of either kind
    faults = [
        f"data.columns.keep holds {name}, but {source} has no such column; correct the name, or leave it out"
        for name in data.columns.keep
        if values and all(_find(value, name) is ABSENT for value in values)
    ]
    fields += ("rejected",) if data.format is RowFormat.preference else ()
    for key in (*fields, "target", "options"):
        column = getattr(data.columns, key)
        optional = (key == "instruction" and data.instruction) or (key == "input" and data.format in _OWN_INPUT)
        if values and column and not optional and all(_find(value, column) is ABSENT for value in values):
            has = ", ".join(shown(name) for name in list(values[0])[:20]) or "none"
            remedy = "name one of them" + (", or null for none" if key in ("input", "target", "options") else "")
            faults.append(f"data.columns.{key}={column}: {source} has no such column; it has {has}; {remedy}")
    raise_together(faults, DataFault)


_OWN_INPUT = (RowFormat.tcm_ner,)  # whose published files hold whole prompts or sentences alone

# Columns that change what other programs train on. One that is not read is mentioned, other columns are not.
_TELLING = {
    "functions", "function_call", "parallel_tool_calls", "tool_calls", "weight", "loss_weight", "train",
    "reasoning", "reasoning_content", "thinking", "system", "system_prompt", "history", "references", "tools",
}  # fmt: skip


def _unread_columns(values: Sequence[dict[str, Any]], source: str, data: Data) -> list[str]:
    columns = data.columns
    read = {columns.instruction, columns.input, columns.output, columns.messages, columns.target, columns.options}
    read |= {columns.weight, columns.rejected}
    read |= {"tools"} if data.format is RowFormat.messages else set()
    heads = {column.split(".")[0] for column in read if column}
    unread = sorted({key for value in values for key in value if key in _TELLING and not is_blank(value[key])} - heads)
    return [f"{source}: the column {', '.join(unread)} is not read and has no effect"] if unread else []


def has_column(fields: dict[str, Any], column: str) -> bool:
    """Whether the row has a value under that name, dotted or not."""
    return _find(fields, column) is not ABSENT


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
            return ABSENT
    return value


def _instruction_row(fields: dict[str, Any], number: int, source: str, data: Data) -> Row:
    columns = data.columns
    own = _find(fields, columns.instruction) if columns.instruction else ABSENT
    instruction = data.instruction or ""
    if own not in (ABSENT, None, "") or not instruction:
        instruction = text_of(own, f"field {columns.instruction!r}")
    value = _find(fields, columns.input) if columns.input else None
    # An absent or null input is how many data sets write "no input"; instruction and output must be there.
    input = "" if value in (None, "", ABSENT) else text_of(value, f"field {columns.input!r}", empty=True)
    options = row_options(fields, data)
    value = options.text_of(_find(fields, columns.output or "")) if options else _find(fields, columns.output or "")
    texts = _references(value, f"field {columns.output!r}")
    messages = (Message("user", question(instruction, input)), Message("assistant", texts[0]))
    row = Row(number, source, instruction, input, texts[0], messages, _target(fields, columns))
    return _with_options(with_references(row, texts), options)


def _preference_row(fields: dict[str, Any], number: int, source: str, data: Data) -> Row:
    """A row whose output is the chosen answer, with the rejected one; both are text, and differ.

    They are its options, too, unless the row has others: which one is likelier can be scored.
    """
    column = data.columns.rejected or ""
    text_of(_find(fields, data.columns.output or ""), f"field {data.columns.output!r}")
    rejected = text_of(_find(fields, column), f"field {column!r}")
    row = _instruction_row(fields, number, source, data)
    if rejected == row.output:
        raise Unusable(f"fields {data.columns.output!r} and {column!r} are the same answer, so neither is preferred")
    return replace(row, rejected=rejected, options=row.options or (row.output, rejected))


def _references(value: Any, what: str) -> list[str]:
    """The output, or several of them if the value is a list."""
    if not isinstance(value, list):
        return [text_of(value, what)]
    if not value:
        raise Unusable(f"{what} is an empty list")
    return [text_of(text, f"{what}, text {at}") for at, text in enumerate(value, start=1)]


def _messages_row(fields: dict[str, Any], number: int, source: str, data: Data) -> Row:
    column = data.columns.messages or ""
    messages = conversation(_find(fields, column), column)
    instruction, input = flat_history(messages[:-1])
    output = messages[-1].content
    row = Row(
        number, source, instruction, input, output, messages, _target(fields, data.columns), tools=tools_of(fields)
    )
    return _with_options(row, row_options(fields, data))


@dataclass(frozen=True)
class Options:
    """The texts that a row's answer may be, and how the file calls them."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()  # such as A, B, C, D; empty: none

    def text_of(self, value: Any) -> Any:
        """The option that the value of the output column names: by its text, label or number from 0; else the value."""
        if isinstance(value, list):
            return [self.text_of(each) for each in value]
        if isinstance(value, str) and value in self.texts:
            return value
        if isinstance(value, str) and value in self.labels:
            return self.texts[self.labels.index(value)]
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(self.texts):
            return self.texts[number]
        return value


def row_options(fields: dict[str, Any], data: Data) -> Options | None:
    """The options of a row: a list of texts, or an object with the lists ``text`` and ``label``, as ARC has it."""
    if data.options is not None:
        return Options(tuple(data.options))
    column = data.columns.options
    if column is None:
        return None
    labels: tuple[str, ...] = ()
    value, what = _find(fields, column), f"field {column!r}"
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value, labels = value["text"], tuple(map(str, value.get("label") or ()))
    if not isinstance(value, list):
        raise Unusable(f"{what} is {'missing' if value is ABSENT else kind_of(value)}, not a list of options")
    texts = tuple(text_of(text, f"{what}, option {at}") for at, text in enumerate(value, start=1))
    if len(set(texts)) < max(2, len(texts)):
        raise Unusable(f"{what} holds {len(set(texts))} different options of {len(texts)}; it takes two or more")
    if labels and len(labels) != len(texts):
        raise Unusable(f"{what} has {len(labels)} labels for {len(texts)} options")
    return Options(texts, labels)


def _with_options(row: Row, options: Options | None) -> Row:
    if options is None:
        return row
    stray = next((text for text in row.all_references if text not in options.texts), None)
    if stray is not None:
        raise Unusable(f"its output {shown(stray)} is none of its options: {', '.join(map(shown, options.texts[:8]))}")
    return replace(row, options=options.texts)


def flat_history(history: Sequence[Message]) -> tuple[str, str]:
    """Instruction and input of a conversation, for templates without turns.

    A system message becomes the instruction and the rest its input; without one, the rest is the instruction. A
    single user turn is kept as it is; a longer history becomes a transcript with the roles' names.
    """
    system = "\n".join(turn.content for turn in history if turn.role == "system")
    turns = [turn for turn in history if turn.role != "system"]
    spoken = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
    text = turns[0].content if len(turns) == 1 else "\n".join(spoken)
    return (system, text) if system else (text, "")


def _target(fields: dict[str, Any], columns: Columns) -> str | None:
    return text_of(_find(fields, columns.target), f"field {columns.target!r}") if columns.target else None
