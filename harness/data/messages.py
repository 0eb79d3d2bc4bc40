"""Chat rows, ``{"messages": [...], "tools": [...]}``: what each message holds, and the checks of it.

Nothing of a message is dropped. ``weight: 0`` keeps a turn from being trained; every other field beside role and
content goes to the chat template (``data/templates.py``), which must show it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.data.json_rows import parse_json
from harness.data.values import ABSENT, Unusable, is_blank, kind_of, shown, text_of

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what else the chat template is given
    trained: bool = True  # false: ``weight`` is 0; matters for turns by the assistant only


def conversation(value: Any, column: str) -> tuple[Message, ...]:
    """The checked messages up to the last one that can be trained.

    What follows that one is not read by the model before it, so it has no effect.

    Raises:
        Unusable: the value is no conversation, or none of its turns can be trained.
    """
    if isinstance(value, str):  # CSV has no lists: its column holds JSON
        value = _parsed(value, column)
    if value is ABSENT:
        raise Unusable(f"field {column!r} is missing")
    if not isinstance(value, list):
        raise Unusable(f"field {column!r} is {kind_of(value)}, not a list of messages")
    messages = tuple(_message(turn, number) for number, turn in enumerate(value, start=1))
    if not messages or messages[-1].role != "assistant":
        raise Unusable("the last message is not by the assistant, so there is nothing to learn")
    if not any(message.role == "user" for message in messages):
        raise Unusable("no message is by the user")
    _check_calls(messages)
    trained = trained_turns(messages)
    if not trained:
        raise Unusable("every message by the assistant has weight 0, so there is nothing to learn; leave the row out")
    return messages[: trained[-1] + 1]


def trained_turns(messages: Sequence[Message]) -> list[int]:
    """Positions of the turns by the assistant that may be trained: those that follow a user's, without weight 0."""
    first = next((at for at, message in enumerate(messages) if message.role == "user"), len(messages))
    return [at for at, message in enumerate(messages) if at > first and message.role == "assistant" and message.trained]


def tools_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """The row's ``tools``, a list of objects or such a list as JSON; () for none."""
    value = fields.get("tools")
    if isinstance(value, str) and value.strip():
        value = _parsed(value, "tools")
    if is_blank(value):
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Unusable("field 'tools' is not a list of objects")
    return tuple(without_blanks(tool) for tool in value)


def without_blanks(value: Any) -> Any:
    """A copy without null fields, which Parquet adds to every object that lacks what another has."""
    if isinstance(value, dict):
        return {key: without_blanks(item) for key, item in value.items() if item is not None}
    return [without_blanks(item) for item in value] if isinstance(value, list) else value


def _parsed(text: str, column: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        raise Unusable(f"field {column!r} is text that is not JSON") from None
    except (ValueError, RecursionError) as fault:
        raise Unusable(f"field {column!r}: {fault}"[:200]) from None


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict):
        raise Unusable(f"message {number} is {kind_of(turn)}, not an object with role and content")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Unusable(f"message {number}: role {shown(role)} is not one of {', '.join(ROLES)}")
    fields = {key: without_blanks(value) for key, value in turn.items() if not is_blank(value)}
    trained = _is_trained(fields.pop("weight", None), role, number)
    calls = fields.get("tool_calls")
    if calls is not None:
        fields["tool_calls"] = list(_calls(calls, role, number))
    content = turn.get("content", ABSENT)
    if calls is not None and (content is ABSENT or is_blank(content)):
        content = ""  # OpenAI writes null beside tool calls
    else:
        content = text_of(content, f"content of message {number}", empty=role == "tool")
    return Message(role, content, {key: fields[key] for key in fields if key not in ("role", "content")}, trained)


def _is_trained(weight: Any, role: str, number: int) -> bool:
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise Unusable(f"weight of message {number} is {shown(weight)}; it must be 0 (not trained) or 1")
    if role != "assistant" and weight == 1:
        raise Unusable(f"message {number} by the {role} has weight 1, but only turns by the assistant are trained")
    return bool(weight)


def _calls(calls: Any, role: str, number: int) -> Iterator[dict[str, Any]]:
    """Tool calls with their arguments as objects, as chat templates expect them; OpenAI writes them as JSON text."""
    if role != "assistant":
        raise Unusable(f"message {number} by the {role} has tool_calls, which only the assistant can make")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unusable(f"tool_calls of message {number} is not a list of objects")
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable(f"a tool call of message {number} names no function")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"arguments of {function['name'][:40]}") if arguments.strip() else {}
        named = {**function, "arguments": arguments}
        yield {**call, "function": named} if "function" in call else named


def _check_calls(messages: Sequence[Message]) -> None:
    """Each result names a call of the turn before it, in the order of the calls.

    Most templates do not show the names of calls; then only their order says which result belongs to which call.
    """
    open_calls: list[str] = []
    for number, message in enumerate(messages, start=1):
        if message.role == "assistant":
            calls = message.fields.get("tool_calls", [])
            open_calls = [call["id"] for call in calls if isinstance(call.get("id"), str)]
        called = message.fields.get("tool_call_id")
        if called is None:
            continue
        if message.role != "tool" or called not in open_calls:
            raise Unusable(f"tool_call_id {shown(called)} of message {number} names no call of the turn before it")
        if open_calls[0] != called:
            raise Unusable(
                f"message {number} answers {shown(called)} before {shown(open_calls[0])}; keep the calls' order"
            )
        open_calls = open_calls[1:]
