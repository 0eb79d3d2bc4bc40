"""Files of every format: the same rows from each, and whatever a file contains, rows or one DataFault."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.data.dataset import read_splits
from harness.data.formats import read_file
from harness.errors import DataFault
from tests.support.data_cases import (
    ALPACA,
    MESSAGES,
    ROWS,
    fault,
    flat,
    jsonl,
    settings,
)


def test_the_same_rows_come_out_of_every_file_format(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [*ROWS, {"instruction": '引号"与，逗号\n换行', "input": "NA", "output": "null"}]
    jsonl(tmp_path, rows)
    jsonl(tmp_path, rows, "lines.json")
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, ["output", "input", "instruction"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    names = ("rows.jsonl", "lines.json", "list.json", "rows.csv", "rows.parquet")
    found = {name: read_splits(settings(tmp_path / name)) for name in names}
    contents = {
        name: [(row.instruction, row.input, row.output, row.messages) for row in flat(result)]
        for name, result in found.items()
    }
    assert all(content == contents["rows.jsonl"] for content in contents.values())
    for split in ("train", "validation", "test"):
        assert len({tuple(row.number for row in result.splits[split]) for result in found.values()}) == 1
    assert [row.output for row in flat(found["rows.csv"])][-1] == "null"


def test_bytes_that_are_not_utf8_name_their_row(tmp_path: Path) -> None:
    file = jsonl(tmp_path, ROWS)
    with file.open("ab") as stream:
        stream.write(b'{"instruction": "q", "output": "a\xff"}\n{"instruction": "q", "output": "\\ud800"}\n')
    text = fault(file)
    assert "row 21: field 'output' is not valid UTF-8 (at character 2)" in text
    assert "row 22: field 'output' is not valid UTF-8" in text
    file.rename(tmp_path / "x.csv").write_bytes(b"instruction,output,input\nq,a,\nq,\xe4,\n")
    assert "x.csv, row 2: field 'output' is not valid UTF-8" in fault(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'[{"instruction": "q", "output": "a"},\n {"instruction": ', "row 2: broken JSON: Expecting value"),
        ("x.json", b'[{"instruction": "q", "output": "a"} 5]', "after row 1: no ','"),
        ("x.json", b"[1] 2", "text follows the end"),
        ("x.json", b"[1,", "row 2: broken JSON"),
        ("x.json", b'{\n"data": []\n}', "it is one JSON object (keys 'data')"),
        ("x.json", b"[" + b"9" * 5000 + b"]", "row 1: a number with too many digits"),
        ("x.json", b"[" * 200_000, "row 1: nested too deeply"),
        ("x.json", b"[]", "has no usable row"),
        ("x.jsonl", b"", "has no usable row"),
        ("x.jsonl", b'{"instruction": "q", "output": "a"', "row 1: broken JSON"),
        ("x.jsonl", b"[" * 200_000, "row 1: nested too deeply"),
        ("x.jsonl", b"9" * 5000, "row 1: a number with too many digits"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16"), "it is UTF-16, not UTF-8"),
        ("x.csv", b"instruction,output,input\nq,a,,,\n", "row 1: 5 cells, but the header names 3 columns"),
        ("x.csv", b"instruction,output,output,input\nq,a,b,\n", "names 'output' twice"),
        ("x.csv", b'instruction,output,input\n"q"x,a,\nq,a,\n', "row 1: broken CSV"),
        ("x.csv", b'instruction,output,input\nq,"a', "row 1: broken CSV"),
        ("x.csv", b"instruction|output|input\nq|a|\n", "it has instruction|output|input"),
        ("x.csv", b"instruction,output,input\n", "has no usable row (0 rows read"),
        ("x.parquet", b"PAR1junkPAR1", "not a Parquet file that can be read"),
        (
            "x.txt",
            b"hello",
            "from its ending .txt; write its rows as one of .json, .jsonl, .ndjson, .csv, .tsv, .parquet",
        ),
    ],
)
def test_unusable_files_end_in_one_readable_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    text = fault(file)
    assert message in text
    assert name in text


def test_a_long_csv_cell_is_read_and_the_process_keeps_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("instruction,output,input\nq," + "a" * 200_000 + ",\n", encoding="utf-8")
    before = csv.field_size_limit()
    assert len(read_file(file)[0][1]["output"]) == 200_000
    assert csv.field_size_limit() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


row_like = st.dictionaries(
    st.sampled_from(["instruction", "input", "output", "messages"]),
    json_values | st.lists(st.dictionaries(st.sampled_from(["role", "content"]), json_values, max_size=2), max_size=3),
)


several = limits(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def accepted_or_one_fault(file: Path) -> None:
    for columns in (ALPACA, MESSAGES):
        for on_bad_row in ("skip", "error"):
            try:
                rows = read_splits(settings(file, columns, on_bad_row=on_bad_row, fractions=(0, 0)))
            except DataFault as caught:
                str(caught).encode()  # printable on any terminal that speaks UTF-8
                continue
            assert rows.splits["train"]
            assert all(row.output.strip() and row.messages[-1].content == row.output for row in rows.splits["train"])
            assert not rows.bad or on_bad_row == "skip"


@several
@given(content=st.binary(max_size=400), ending=st.sampled_from([".json", ".jsonl", ".csv", ".parquet"]))
def test_any_bytes_give_rows_or_one_fault(tmp_path: Path, content: bytes, ending: str) -> None:
    file = tmp_path / f"any{ending}"
    file.write_bytes(content)
    accepted_or_one_fault(file)


@several
@given(
    rows=st.lists(row_like | json_values, max_size=5),
    lines=st.booleans(),
    noise=st.binary(max_size=3),
    at=st.integers(0),
)
def test_any_json_gives_rows_or_one_fault(tmp_path: Path, rows: list, lines: bool, noise: bytes, at: int) -> None:
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    content = text.encode()
    place = at % (len(content) + 1)
    file = tmp_path / ("any.jsonl" if lines else "any.json")
    file.write_bytes(content[:place] + noise + content[place:])
    accepted_or_one_fault(file)


@several
@given(
    header=st.permutations(["instruction", "input", "output", "messages"]),
    rest=st.text(st.sampled_from('a,"\n\r\0；[{ '), max_size=60),
)
def test_any_csv_gives_rows_or_one_fault(tmp_path: Path, header: list[str], rest: str) -> None:
    file = tmp_path / "any.csv"
    file.write_text(",".join(header) + "\n" + rest, encoding="utf-8", newline="")
    accepted_or_one_fault(file)


@several
@given(flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damaged_parquet_gives_rows_or_one_fault(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), stream)
    content = bytearray(stream.getvalue())
    for place, value in flips:
        content[place % len(content)] = value
    file = tmp_path / "any.parquet"
    file.write_bytes(content)
    accepted_or_one_fault(file)
