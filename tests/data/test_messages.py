"""What a message may hold: weights, tool calls, results, and blanks that stand for nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.dataset import read_splits
from harness.data.messages import Message, conversation, tools_of, trained_turns
from harness.data.values import Unusable
from tests.support.data_cases import MESSAGES, jsonl, settings, turns

USER = {"role": "user", "content": "q"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def says(content: Any = "a", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def refused(*messages: dict[str, Any]) -> str:
    with pytest.raises(Unusable) as caught:
        conversation(list(messages), "messages")
    return str(caught.value)


def test_a_turn_of_weight_0_is_kept_as_history_and_not_trained() -> None:
    whole = conversation([USER, says("bad", weight=0), USER, says("good", weight=1)], "messages")
    assert [message.trained for message in whole] == [True, False, True, True]
    assert trained_turns(whole) == [3]
    assert all(message.fields == {} for message in whole)


def test_a_conversation_ends_with_its_last_turn_that_is_trained() -> None:
    assert conversation([USER, says("good"), USER, says("bad", weight=0)], "messages") == turns(
        ("user", "q"), ("assistant", "good")
    )
    assert "every message by the assistant has weight 0" in refused(USER, says(weight=0))


@pytest.mark.parametrize("weight", [0.5, 2, -1, True, "0"])
def test_another_weight_is_refused(weight: Any) -> None:
    assert "weight of message 2 is" in refused(USER, says(weight=weight))
    assert "message 1 by the user has weight 1" in refused({**USER, "weight": 1}, says())
    assert conversation([{**USER, "weight": 0}, says(weight=1.0)], "messages")


def test_calls_may_stand_without_content_and_their_arguments_become_objects() -> None:
    for content in (None, "", "Calling."):
        whole = conversation([USER, says(content, tool_calls=[CALL])], "messages")
        assert whole[-1].content == (content or "")
        assert whole[-1].fields["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert "content of message 2 is null" in refused(USER, says(None))
    assert "names no function" in refused(USER, says(tool_calls=[{"id": "c1"}]))
    assert "tool_calls of message 2 is not a list of objects" in refused(USER, says(tool_calls=["weather"]))
    broken = {"function": {"name": "weather", "arguments": "{"}}
    assert "field 'arguments of weather' is text that is not JSON" in refused(USER, says(tool_calls=[broken]))
    assert "which only the assistant can make" in refused({**USER, "tool_calls": [CALL]}, says())


def test_results_name_the_calls_before_them_in_their_order() -> None:
    two = says("", tool_calls=[CALL, {**CALL, "id": "c2"}])
    results = [{"role": "tool", "tool_call_id": name, "content": "rain"} for name in ("c1", "c2")]
    assert len(conversation([USER, two, *results, says()], "messages")) == 5
    assert "answers c2 before c1" in refused(USER, two, *results[::-1], says())
    assert "tool_call_id c9 of message 3 names no call" in refused(
        USER, two, {**results[0], "tool_call_id": "c9"}, says()
    )


def test_blanks_are_no_fields_but_every_other_value_is_one() -> None:
    blank = {"name": None, "tool_calls": None, "audio": [], "refusal": "", "weight": None}
    assert conversation([{**USER, **blank}, {**says(), **blank}], "messages") == turns(
        ("user", "q"), ("assistant", "a")
    )
    assert conversation([USER, says(reasoning_content="r", n=0)], "messages")[-1] == Message(
        "assistant", "a", {"reasoning_content": "r", "n": 0}
    )


def test_tools_are_a_list_of_objects_or_its_json() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": None}}
    expected = ({"type": "function", "function": {"name": "weather"}},)
    assert tools_of({"tools": [tool]}) == tools_of({"tools": json.dumps([tool])}) == expected
    assert tools_of({}) == tools_of({"tools": None}) == tools_of({"tools": "[]"}) == ()
    with pytest.raises(Unusable, match="'tools' is not a list of objects"):
        tools_of({"tools": ["weather"]})


def test_columns_that_other_programs_train_on_are_mentioned_once(tmp_path: Path) -> None:
    row = {"messages": [USER, says()], "functions": [{"name": "f"}], "system": None, "id": 7, "tools": None}
    rows = read_splits(settings(jsonl(tmp_path, [row] * 5), MESSAGES, fractions=(0, 0)))
    assert rows.notes == ("rows.jsonl: the column functions is not read and has no effect",)
    alpaca = {"instruction": "q", "input": "", "output": "a", "history": [["a", "b"]], "weight": 0, "id": "x"}
    rows = read_splits(settings(jsonl(tmp_path, [alpaca]), fractions=(0, 0)))
    assert rows.notes == ("rows.jsonl: the column history, weight is not read and has no effect",)
