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


OPTIONS = ["no", "yes", "2"]
WITH_OPTIONS = {"instruction": "instruction", "output": "output", "options": "choices"}


@pytest.mark.parametrize(
    ("output", "choices", "references"),
    [
        ("yes", OPTIONS, ("yes",)),  # by its text,
        (1, OPTIONS, ("yes",)),  # by its number from 0,
        ("1", OPTIONS, ("yes",)),  # which may be text,
        ("2", OPTIONS, ("2",)),  # unless an option is that text,
        ("B", {"text": OPTIONS, "label": ["A", "B", "C"]}, ("yes",)),  # or by its label
        (["yes", 0], OPTIONS, ("yes", "no")),
    ],
)
def test_the_output_names_its_option_by_text_number_or_label(
    tmp_path: Path, output: object, choices: object, references: tuple[str, ...]
) -> None:
    row = {"instruction": "q", "output": output, "choices": choices}
    data = settings(jsonl(tmp_path, [{**row, "instruction": f"q{at}"} for at in range(3)]), WITH_OPTIONS)
    rows = read_splits(data)
    for split in ("validation", "test"):
        assert [each.all_references for each in rows.splits[split]] == [references]
        assert [each.options for each in rows.splits[split]] == [tuple(OPTIONS)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"output": "perhaps", "choices": OPTIONS}, "its output perhaps is none of its options: no, yes, 2"),
        ({"output": 3, "choices": OPTIONS}, "is a number, not text"),
        ({"output": True, "choices": OPTIONS}, "is true or false, not text"),
        ({"output": "yes", "choices": "no, yes"}, "field 'choices' is text, not a list of options"),
        ({"output": "yes"}, "field 'choices' is missing"),
        ({"output": "yes", "choices": ["yes", "yes"]}, "1 different options of 2"),
        ({"output": "yes", "choices": {"text": ["yes", "no"], "label": ["A"]}}, "has 1 labels for 2 options"),
    ],
)
def test_a_row_without_options_or_with_another_output_is_bad(
    tmp_path: Path, row: dict[str, object], reason: str
) -> None:
    good = {"instruction": "q", "output": "yes", "choices": OPTIONS}
    assert reason in fault(jsonl(tmp_path, [good, {"instruction": "r", **row}]), WITH_OPTIONS)


def test_options_of_all_rows_are_those_of_the_setting(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{at}", "output": at % 2} for at in range(4)]
    data = settings(jsonl(tmp_path, rows), {"instruction": "instruction", "output": "output"}, options=["no", "yes"])
    read = read_splits(data)
    assert {row.output for split in read.splits.values() for row in split} == {"no", "yes"}
    assert all(row.options == ("no", "yes") for split in read.splits.values() for row in split)
