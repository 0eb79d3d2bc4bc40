"""Columns and messages of one row, and why a row cannot be used."""

import csv
import json
from pathlib import Path

import pytest

from harness.data.dataset import read_splits
from tests.support.data_cases import (
    MESSAGES,
    ROWS,
    fault,
    jsonl,
    settings,
    turns,
)
from tests.support.own_code import importable, write


def test_columns_are_mapped_and_dotted_names_descend(tmp_path: Path) -> None:
    row = {"q": "ask", "deep": [{"a.b": 1, "answer": "yes"}], "short": "y"}
    columns = {"instruction": "q", "output": "deep.0.answer", "target": "short"}
    rows = read_splits(settings(jsonl(tmp_path, [row]), columns, fractions=(0, 0)))
    (got,) = rows.splits["train"]
    assert (got.instruction, got.input, got.output, got.target) == ("ask", "", "yes", "y")
    assert got.messages == turns(("user", "ask"), ("assistant", "yes"))


def test_a_missing_column_is_one_message_naming_key_and_columns(tmp_path: Path) -> None:
    text = fault(jsonl(tmp_path, ROWS), {"instruction": "question", "output": "answer"})
    assert "data.columns.instruction=question: rows.jsonl has no such column; it has instruction, input, output" in text
    assert "data.columns.output=answer" in text
    without = jsonl(tmp_path, [{"instruction": "q", "output": "a"}], "no_input.jsonl")
    assert "data.columns.input=input: no_input.jsonl has no such column" in fault(without)
    assert "or null for none" in fault(without)
    assert "data.columns.output=null" in fault(jsonl(tmp_path, ROWS), {"instruction": "instruction"})


def test_messages_keep_their_turns_and_flatten_for_plain_templates(tmp_path: Path) -> None:
    chat = [("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    written = [{"role": role, "content": content} for role, content in chat]
    file = jsonl(tmp_path, [{"messages": written}, {"messages": written[1:3]}])
    long, short = read_splits(settings(file, MESSAGES, fractions=(0, 0))).splits["train"]
    assert long.messages == turns(*chat)
    assert (long.instruction, long.input, long.output) == ("be kind", "User: a\nAssistant: b\nUser: c", "d")
    assert (short.instruction, short.input, short.output) == ("a", "", "b")
    table = tmp_path / "x.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["messages"], [json.dumps(written)], ["[oops"]])
    rows = read_splits(settings(table, MESSAGES, fractions=(0, 0), on_bad_row="skip"))
    assert rows.splits["train"][0].messages == turns(*chat)
    assert "text that is not JSON" in rows.bad[0].reason


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "not by the assistant"),
        ([{"role": "user", "content": "a"}], "not by the assistant"),
        ([{"role": "assistant", "content": "a"}], "no message is by the user"),
        ([{"role": "bot", "content": "a"}], "message 1: role bot is not one of"),
        ([{"role": 3, "content": "a"}], "message 1: role 3 is not one of"),
        ([{"role": "user"}, {"role": "assistant", "content": "a"}], "content of message 1 is missing"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "content of message 2 is empty"),
        (["hello"], "message 1 is text"),
        ({"role": "user"}, "is an object, not a list of messages"),
        (None, "is null, not a list"),
    ],
)
def test_messages_that_cannot_be_learned_from_say_why(tmp_path: Path, messages: object, reason: str) -> None:
    assert reason in fault(jsonl(tmp_path, [{"messages": messages}]), MESSAGES)


CONVERT = """
def quiz(row):
    if row["q"] == "old":
        raise ValueError("it was retracted")
    if row["q"] == "chat":
        return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    if row["q"] == "odd":
        return None
    if row["q"] == "bad":
        return row["missing"]
    return {"instruction": row["q"], "input": "", "output": row["a"], "topic": "sums"}
"""


def test_rows_of_another_form_are_converted_by_a_function_of_the_users_own(tmp_path: Path) -> None:
    raw = [{"q": "2 + 2?", "a": ["4", "four"]}, *({"q": name} for name in ("old", "chat", "odd", "bad")), 3]
    columns = {"instruction": "instruction", "input": "input", "output": "output", "messages": "messages"}
    with importable(write(tmp_path, own_rows=CONVERT)):
        data = settings(
            jsonl(tmp_path, raw),
            {**columns, "keep": ["topic"]},
            format="own_rows:quiz",
            fractions=(0, 0),
            on_bad_row="skip",
        )
        found = read_splits(data)
    first, *_, chat = found.splits["train"]
    assert (first.instruction, first.output, first.kept) == ("2 + 2?", "4", {"topic": "sums"})
    assert (chat.output, chat.kept) == ("b", {"topic": None})
    assert [(row.number, row.reason) for row in found.bad] == [
        (2, "it was retracted"),
        (4, "own_rows:quiz returns NoneType None, not a dict of instruction, input and output"),
        (5, "own_rows:quiz fails on it (KeyError: 'missing')"),
        (6, "the row is a number, not an object with named fields"),
    ]


def test_a_column_that_no_row_has_cannot_be_kept(tmp_path: Path) -> None:
    columns = {"instruction": "instruction", "output": "output", "keep": ["topic"]}
    assert "data.columns.keep holds topic, but rows.jsonl has no such column" in fault(jsonl(tmp_path, ROWS), columns)
