"""JSON as rows: lists, lines and streams; a key that stands twice; what a broken file is told."""

import json

import pytest

from harness.data.json_rows import BrokenRow, json_lines_rows, json_rows, parse_json
from harness.data.unreadable import Unreadable

ROWS = [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"a": 2}\n',
        '{"a": 1},\n{"a": 2},\n',
        '{\n "a": 1\n}\n{\n "a": 2\n}',
        '{\n "a": 1\n},\n{\n "a": 2\n}',
        '[{"a": 1}, {"a": 2}]',
        '[\n{"a": 1},\n{"a": 2},\n]',
        json.dumps(ROWS, indent=1),
    ],
)
@pytest.mark.parametrize("read", [json_rows, json_lines_rows])
def test_every_way_to_write_the_same_rows_reads_the_same(text, read):
    assert [value for _, value in read(text)] == ROWS


def test_a_key_that_stands_twice_is_refused_with_key_and_row_wherever_it_is():
    for text in ('{"a": 1}\n{"a": 2, "a": 3}\n{"a": 4}', '[{"a": 1}, {"a": 2, "a": 3}, {"a": 4}]'):
        (_, first), (number, broken), (_, last) = json_rows(text)
        assert (first, last, number) == ({"a": 1}, {"a": 4}, 2)
        assert isinstance(broken, BrokenRow)
        assert "its key 'a' appears twice" in broken.reason
    [(_, deep)] = json_lines_rows('{"messages": [{"role": "user", "content": "x", "content": "y"}]}')
    assert isinstance(deep, BrokenRow)
    assert "'content' appears twice" in deep.reason
    with pytest.raises(ValueError, match="'b' appears twice"):
        parse_json('{"b": 1, "b": 1}')
    assert parse_json(' {"b": {"b": 1}} \n') == {"b": {"b": 1}}


def test_lists_in_a_file_of_lines_are_rows_unless_they_hold_objects():
    assert [value for _, value in json_lines_rows("[1]\n[2]\n")] == [[1], [2]]
    assert [value for _, value in json_lines_rows("[1]")] == [[1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data": [{"a": 1}]}', "jq '.data' FILE > rows.json"),
        ('{\n"data": [{"a": 1}]\n}', "jq '.data' FILE > rows.json"),
        ('{\n"a b": {}\n}', "write a list of rows"),
    ],
)
def test_one_object_is_told_where_its_rows_are(text, said):
    with pytest.raises(Unreadable, match="it is one JSON object") as caught:
        list(json_rows(text))
    assert said in str(caught.value)


def test_one_row_of_messages_is_a_row():
    row = {"messages": [{"role": "user", "content": "a"}]}
    assert list(json_rows(json.dumps(row))) == [(1, row)]
