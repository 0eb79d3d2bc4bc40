"""What a chat template makes of a row beside roles and contents: tool calls, tools, reasoning, any other field.

Templates skip what they do not know, without a word. So each field is left out once: if the text stays the same, the
template does not show it, and the row is refused.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.data.rows import Row
from harness.data.values import shown
from harness.errors import DataFault

Messages = list[dict[str, Any]]
Render = Callable[[Sequence[dict[str, Any]], Sequence[Any]], str]  # messages and tools as text

ORDERED = "tool_call_id"  # need not be shown: ``messages.conversation`` has checked that results keep the calls' order


def as_template_takes_them(row: Row, render: Render) -> Messages:
    """The messages in the form that the template reads: most take a call's arguments as an object, some as JSON text.

    Raises:
        DataFault: the template refuses both, for the reason that it gives for the first.
    """
    messages = [{"role": turn.role, "content": turn.content, **turn.fields} for turn in row.messages]
    if not any("tool_calls" in message for message in messages):
        return messages
    try:
        render(messages, row.tools)
    except DataFault:
        written = [_arguments_as_text(message) for message in messages]
        try:
            render(written, row.tools)
        except DataFault:
            pass
        else:
            return written
        raise
    return messages


def refuse_hidden(row: Row, messages: Messages, render: Render) -> None:
    """Raise DataFault, naming them, if the template shows other than all of this row."""
    whole = render(messages, row.tools)
    for name, changed, tools in _changes(row, messages, whole):
        try:
            same = render(changed, tools) == whole
        except DataFault:  # the template needs what is missing now
            continue
        if same:
            raise DataFault(
                f"the tokenizer's chat template does not show {name}; remove it from the row, or use a model whose"
                " template shows it"
            )


def _changes(row: Row, messages: Messages, whole: str) -> Iterator[tuple[str, Messages, Sequence[Any]]]:
    """A name of each part of the row, and the row without it, or with another in its place."""
    if row.tools:
        yield "its tools", messages, ()
    for at, message in enumerate(messages):
        place = f"of message {at + 1}"

        def put(message: dict[str, Any], at: int = at) -> Messages:
            return [*messages[:at], message, *messages[at + 1 :]]

        fields = row.messages[at].fields
        for key in fields:
            if key != ORDERED:
                yield f"{shown(key)} {place}", put({name: message[name] for name in message if name != key}), row.tools
        for number in range(len(fields.get("tool_calls", []))):
            yield f"the arguments of a tool call {place}", put(_with_other_arguments(message, number)), row.tools
        text = message["content"].strip()
        if text and (fields or text not in whole):
            yield f"the content {place} by the {message['role']}", put({**message, "content": f"{text}Q7Q"}), row.tools


def _arguments_as_text(message: dict[str, Any]) -> dict[str, Any]:
    def as_text(function: dict[str, Any]) -> dict[str, Any]:
        return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}

    return _with_calls(message, lambda number, function: as_text(function))


def _with_other_arguments(message: dict[str, Any], which: int) -> dict[str, Any]:
    def other(number: int, function: dict[str, Any]) -> dict[str, Any]:
        if number != which:
            return function
        changed = {"Q7Q": "Q7Q"}
        is_text = isinstance(function["arguments"], str)
        return {**function, "arguments": json.dumps(changed) if is_text else changed}

    return _with_calls(message, other)


def _with_calls(message: dict[str, Any], change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    calls = [
        {**call, "function": change(number, call["function"])} if "function" in call else change(number, call)
        for number, call in enumerate(message.get("tool_calls", []))
    ]
    return {**message, "tool_calls": calls} if calls else message
