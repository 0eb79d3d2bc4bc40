"""Rows: every one accepted, or named with file, row number and reason; splits by ``data.split_seed`` alone."""

import csv
import hashlib
import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from harness.data import dataset
from harness.data.formats import read_file
from harness.data.sources import data_digest, text_digest
from harness.data.splits import SPLITS
from harness.errors import DataFault
from tests.support.data_cases import ALPACA, MESSAGES, settings, shared
from tests.support.paths import ROOT

ROWS = [{"instruction": f"q{i}", "input": "", "output": f"a{i}"} for i in range(20)]


def jsonl(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def flat(rows: dataset.SplitRows) -> list[dataset.Row]:
    return sorted((row for split in rows.splits.values() for row in split), key=lambda row: row.number)


def fault(source: object, columns: dict = ALPACA, **changes: object) -> str:
    with pytest.raises(DataFault) as caught:
        dataset.read_splits(settings(source, columns, **changes))
    return str(caught.value)


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
    found = {name: dataset.read_splits(settings(tmp_path / name)) for name in names}
    assert len({result.digest for result in found.values()}) == 1
    assert [row.output for row in flat(found["rows.csv"])][-1] == "null"


def test_columns_are_mapped_and_dotted_names_descend(tmp_path: Path) -> None:
    row = {"q": "ask", "deep": [{"a.b": 1, "answer": "yes"}], "short": "y"}
    columns = {"instruction": "q", "output": "deep.0.answer", "target": "short"}
    rows = dataset.read_splits(settings(jsonl(tmp_path, [row]), columns, fractions=(0, 0)))
    (got,) = rows.splits["train"]
    assert (got.instruction, got.input, got.output, got.target) == ("ask", "", "yes", "y")
    assert got.messages == (("user", "ask"), ("assistant", "yes"))


def test_bad_rows_are_listed_ten_at_most_with_file_number_and_reason(tmp_path: Path) -> None:
    bad = [
        {"instruction": "q"},
        {"instruction": "q", "output": " \n"},
        {"instruction": 3, "output": "a"},
        {"instruction": "q", "output": None},
        {"instruction": "q", "output": ["a"]},
        {"instruction": "q", "input": 1, "output": "a"},
        [1],
        "text",
        *[{"instruction": "", "output": "a"}] * 5,
    ]
    text = fault(jsonl(tmp_path, [*ROWS, *bad]))
    assert text.startswith("13 of 33 rows")
    assert "rows.jsonl, row 21: field 'output' is missing" in text
    assert "rows.jsonl, row 22: field 'output' is empty" in text
    assert "row 23: field 'instruction' is a number, not text" in text
    assert "row 24: field 'output' is null, not text" in text
    assert "row 25: field 'output' is a list" in text
    assert "row 27: the row is a list" in text
    assert text.count(", row ") == 10
    assert "and 3 more" in text
    assert "data.on_bad_row=skip" in text


def test_skip_leaves_bad_rows_out_and_keeps_their_account(tmp_path: Path) -> None:
    file = jsonl(tmp_path, [*ROWS, {"instruction": "q", "output": ""}])
    rows = dataset.read_splits(settings(file, on_bad_row="skip"))
    assert len(flat(rows)) == 20
    assert rows.bad == (dataset.BadRow("rows.jsonl", 21, "field 'output' is empty"),)


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
        ("x.json", b"[1,]", "row 2: broken JSON"),
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
        ("x.csv", b"instruction;output;input\nq;a;\n", "it has instruction;output;input"),
        ("x.csv", b"instruction,output,input\n", "has no usable row (0 rows read"),
        ("x.parquet", b"PAR1junkPAR1", "not a Parquet file that can be read"),
        ("x.txt", b"hello", "its ending tells no format; rename it to one of .json, .jsonl, .csv, .parquet"),
    ],
)
def test_unusable_files_end_in_one_readable_message(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    text = fault(file)
    assert message in text
    assert name in text


def test_a_long_csv_cell_is_no_fault_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("instruction,output,input\nq," + "a" * 200_000 + ",\n", encoding="utf-8")
    before = csv.field_size_limit()
    assert len(read_file(file)[0][1]["output"]) == 200_000
    assert csv.field_size_limit() == before


def test_a_missing_column_is_one_message_naming_key_and_columns(tmp_path: Path) -> None:
    text = fault(jsonl(tmp_path, ROWS), {"instruction": "question", "output": "answer"})
    assert "data.columns.instruction=question: rows.jsonl has no such column; it has instruction, input, output" in text
    assert "data.columns.output=answer" in text
    without = jsonl(tmp_path, [{"instruction": "q", "output": "a"}], "no_input.jsonl")
    assert "data.columns.input=input: no_input.jsonl has no such column" in fault(without)
    assert "or null for none" in fault(without)
    assert "data.columns.output=null" in fault(jsonl(tmp_path, ROWS), {"instruction": "instruction"})


@pytest.mark.parametrize(
    "path", ["missing.jsonl", "./missing", "/nowhere/at/all", "a/b/c", "", "x\0y", "n" * 5000, "~nobody-here/x"]
)
def test_a_missing_path_says_where_it_was_looked_for(path: str) -> None:
    text = fault(path)
    assert "data.path=" in text
    assert "no such file or folder" in text
    with pytest.raises(DataFault, match="no such file"):
        data_digest(settings(path))


def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'some/name' on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    text = fault("some/name")
    assert "data.path=some/name" in text
    assert "Couldn't reach" in text
    assert "second line" not in text
    assert "set data.path to the file" in text
    assert data_digest(settings("some/name")) is None


def test_hub_splits_are_read_by_name_and_the_rest_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    asked = []

    def load_dataset(path: str, split: str, **more: object) -> datasets.Dataset:
        asked.append((path, split, more["name"], more["revision"], more["cache_dir"]))
        return datasets.Dataset.from_list([{**row, "instruction": split + row["instruction"]} for row in ROWS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = dataset.read_splits(
        settings("some/name", splits=(None, None, "test"), subset="main", revision="v1"), tmp_path
    )
    assert asked == [("some/name", split, "main", "v1", str(tmp_path)) for split in ("train", "test")]
    assert {name: len(split) for name, split in rows.splits.items()} == {"train": 18, "validation": 2, "test": 20}
    assert rows.splits["test"][0].source == "some/name:test"


def test_folder_splits_take_names_with_or_without_ending(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS, "train.jsonl")
    jsonl(tmp_path, ROWS[:3], "held.jsonl")
    rows = dataset.read_splits(settings(tmp_path, splits=("train", None, "held.jsonl"), fractions=(0.5, 0.9)))
    assert [len(rows.splits[name]) for name in SPLITS] == [10, 10, 3]
    assert rows.duplicates_across_splits == 3
    assert "data.splits.test=gone is no file in" in fault(tmp_path, splits=("train", None, "gone"))
    assert "both" in fault(tmp_path, splits=("train", "held", "held.jsonl"))
    assert "holds 2 data files" in fault(tmp_path)
    (tmp_path / "held.csv").write_text("instruction,output\n", encoding="utf-8")
    assert "fits held.jsonl, held.csv" in fault(tmp_path, splits=("train", None, "held"))
    assert "is a single file" in fault(tmp_path / "train.jsonl", splits=("train", None, "test"))


def test_the_embedded_data_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {**ALPACA, "target": "medicine"}
    rows = dataset.read_splits(settings("medicine", columns, splits=("train.jsonl", "validation.jsonl", "test.jsonl")))
    assert all(rows.splits[name] for name in SPLITS)
    assert all(row.target and row.target in row.output for row in flat(rows))
    assert rows.duplicates_across_splits == 0


def test_splits_depend_on_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i}", "output": "a", "input": ""} for i in range(200)]
    file = jsonl(tmp_path, rows)
    random.seed(1)
    first = dataset.read_splits(settings(file))
    random.seed(2)
    assert dataset.read_splits(settings(file)) == first
    assert [len(first.splits[name]) for name in SPLITS] == [160, 20, 20]
    assert dataset.read_splits(settings(file, split_seed=1)).splits["test"] != first.splits["test"]
    assert dataset.read_splits(settings(file, fractions=(0.4, 0.1))).splits["test"] == first.splits["test"]
    numbers = [row.number for row in first.splits["train"]]
    assert numbers == sorted(numbers)


def test_rows_of_one_prompt_stay_on_one_side_of_a_cut(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{i % 40}", "output": f"a{i}", "input": ""} for i in range(200)]
    for seed in range(5):
        found = dataset.read_splits(settings(jsonl(tmp_path, rows), split_seed=seed))
        assert found.duplicates_across_splits == 0
        assert len(found.splits["test"]) in range(16, 21)


def test_one_prompt_for_all_rows_is_cut_and_reported_as_duplicates(tmp_path: Path) -> None:
    rows = [{"instruction": "write", "output": f"a{i}", "input": ""} for i in range(20)]
    found = dataset.read_splits(settings(jsonl(tmp_path, rows)))
    assert [len(found.splits[name]) for name in SPLITS] == [16, 2, 2]
    assert found.duplicates_across_splits == 4


def test_limits_are_drawn_by_seed_and_nest(tmp_path: Path) -> None:
    file = jsonl(tmp_path, [{"instruction": f"q{i}", "output": "a", "input": ""} for i in range(100)])
    small = dataset.read_splits(settings(file, limits=(5, 2, None)))
    large = dataset.read_splits(settings(file, limits=(10, None, None)))
    assert [len(small.splits[name]) for name in SPLITS] == [5, 2, 10]
    assert set(small.splits["train"]) < set(large.splits["train"])
    assert (
        dataset.read_splits(settings(file, limits=(5, 2, None), split_seed=3)).splits["train"] != small.splits["train"]
    )
    assert "data.limits.train=0" in fault(file, limits=(0, None, None))


def test_empty_splits_are_faults_where_rows_were_asked_for(tmp_path: Path) -> None:
    assert "none of 1 rows for training" in fault(jsonl(tmp_path, ROWS[:1]))
    assert "none of 1 rows for training" in fault(jsonl(tmp_path, ROWS[:1]), fractions=(0.1, 0))
    assert "data.fractions.test=1.0" in fault(jsonl(tmp_path, ROWS), fractions=(0, 1.0))
    assert "data.fractions.test=nan" in fault(jsonl(tmp_path, ROWS), fractions=(0, float("nan")))
    none = dataset.read_splits(settings(jsonl(tmp_path, ROWS), fractions=(0, 0)))
    assert [len(none.splits[name]) for name in SPLITS] == [20, 0, 0]
    bad = jsonl(tmp_path, [{"instruction": "q", "input": "", "output": ""}])
    assert "has no usable row (1 rows read, 1 bad)" in fault(bad, on_bad_row="skip")


def test_messages_keep_their_turns_and_flatten_for_plain_templates(tmp_path: Path) -> None:
    chat = [("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    turns = [{"role": role, "content": content} for role, content in chat]
    file = jsonl(tmp_path, [{"messages": turns}, {"messages": turns[1:3]}])
    long, short = dataset.read_splits(settings(file, MESSAGES, fractions=(0, 0))).splits["train"]
    assert long.messages == tuple(chat)
    assert (long.instruction, long.input, long.output) == ("be kind", "User: a\nAssistant: b\nUser: c", "d")
    assert (short.instruction, short.input, short.output) == ("a", "", "b")
    table = tmp_path / "x.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["messages"], [json.dumps(turns)], ["[oops"]])
    rows = dataset.read_splits(settings(table, MESSAGES, fractions=(0, 0), on_bad_row="skip"))
    assert rows.splits["train"][0].messages == tuple(chat)
    assert "text that is not JSON" in rows.bad[0].reason


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "not by the assistant"),
        ([{"role": "user", "content": "a"}], "not by the assistant"),
        ([{"role": "assistant", "content": "a"}], "no message is by the user"),
        ([{"role": "bot", "content": "a"}], "message 1: role bot is none of"),
        ([{"role": 3, "content": "a"}], "message 1: role a number is none of"),
        ([{"role": "user"}, {"role": "assistant", "content": "a"}], "content of message 1 is missing"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "content of message 2 is empty"),
        (["hello"], "message 1 is text"),
        ({"role": "user"}, "is an object, not a list of messages"),
        (None, "is null, not a list"),
    ],
)
def test_messages_that_cannot_be_learnt_from_say_why(tmp_path: Path, messages: object, reason: str) -> None:
    assert reason in fault(jsonl(tmp_path, [{"messages": messages}]), MESSAGES)


def test_digests_follow_content_and_order(tmp_path: Path) -> None:
    file = jsonl(tmp_path, ROWS)
    digest = data_digest(settings(file))
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    rows = dataset.read_splits(settings(file, fractions=(0, 0)))
    other = dataset.read_splits(settings(jsonl(tmp_path, ROWS[::-1]), fractions=(0, 0)))
    assert rows.digest != other.digest
    folder = settings(tmp_path, splits=("rows", None, None))
    assert data_digest(folder) == data_digest(settings(file))
    assert text_digest(str(file)) == data_digest(settings(file))
    with pytest.raises(DataFault, match=r"scoring\.forgetting=nothing: no such file"):
        text_digest("nothing")


def test_importing_the_data_stage_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    heavy = "torch", "transformers", "datasets", "pyarrow"
    code = f"import sys, harness.data, harness.tokens; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


# Real files


def test_real_files_read_with_a_column_mapping() -> None:
    gsm8k = dataset.read_splits(
        settings(shared("gsm8k"), {"instruction": "question", "output": "answer"}, splits=("train", None, "test"))
    )
    assert [len(gsm8k.splits[name]) for name in SPLITS] == [6726, 747, 1319]
    seeds = {"instruction": "instruction", "input": "instances.0.input", "output": "instances.0.output"}
    assert len(flat(dataset.read_splits(settings(shared("self_instruct/seed_tasks.jsonl"), seeds)))) == 175
    ner = dataset.read_splits(settings(shared("tcm_ner/dev.json"), {"instruction": "input", "output": "target"}))
    assert len(flat(ner)) == 657
    # Several answers for each meaning: a cut by rows would put one meaning on both sides.
    e2e = dataset.read_splits(settings(shared("e2e_nlg/devset.csv"), {"instruction": "mr", "output": "ref"}))
    assert len(flat(e2e)) == 4672
    assert e2e.duplicates_across_splits == 0


# Properties: whatever a file holds, rows are accepted or there is one DataFault

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
                rows = dataset.read_splits(settings(file, columns, on_bad_row=on_bad_row, fractions=(0, 0)))
            except DataFault as caught:
                str(caught).encode()  # printable on any terminal that speaks UTF-8
                continue
            assert rows.splits["train"]
            assert all(row.output.strip() and row.messages[-1][1] == row.output for row in rows.splits["train"])
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


@several
@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=60), st.integers(0, 10**6))
def test_every_row_lands_in_exactly_one_split(tmp_path: Path, prompts: list[str], seed: int) -> None:
    rows = [{"instruction": prompt, "output": "a", "input": ""} for prompt in prompts]
    found = dataset.read_splits(settings(jsonl(tmp_path, rows), split_seed=seed))
    assert [row.number for row in flat(found)] == list(range(1, len(rows) + 1))
