"""The data set of a run: every row accepted, or reported with file, row number and reason."""

import csv
from pathlib import Path

import pytest

from harness.data.dataset import read_splits
from harness.data.rows import BadRow
from harness.data.splits import SPLITS
from tests.support.data_cases import ALPACA, ROWS, fault, flat, jsonl, settings, shared
from tests.support.paths import ROOT


def test_bad_rows_are_listed_ten_at_most_with_file_number_and_reason(tmp_path: Path) -> None:
    bad = [
        {"instruction": "q"},
        {"instruction": "q", "output": " \n"},
        {"instruction": 3, "output": "a"},
        {"instruction": "q", "output": None},
        {"instruction": "q", "output": ["a", 1]},
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
    assert "row 25: field 'output', text 2 is a number" in text
    assert "row 27: the row is a list" in text
    assert text.count(", row ") == 10
    assert "and 3 more" in text
    assert "data.on_bad_row=skip" in text


def test_skip_leaves_bad_rows_out_and_lists_them(tmp_path: Path) -> None:
    file = jsonl(tmp_path, [*ROWS, {"instruction": "q", "output": ""}])
    rows = read_splits(settings(file, on_bad_row="skip"))
    assert len(flat(rows)) == 20
    assert rows.bad == (BadRow("rows.jsonl", 21, "field 'output' is empty"),)


def test_hub_splits_are_read_by_name_and_the_rest_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    asked = []

    def load_dataset(path: str, split: str, **more: object) -> datasets.Dataset:
        asked.append((path, split, more["name"], more["revision"], more["cache_dir"]))
        return datasets.Dataset.from_list([{**row, "instruction": split + row["instruction"]} for row in ROWS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_splits(settings("some/name", splits=(None, None, "test"), subset="main", revision="v1"), tmp_path)
    assert asked == [("some/name", split, "main", "v1", str(tmp_path)) for split in ("train", "test")]
    assert {name: len(split) for name, split in rows.splits.items()} == {"train": 18, "validation": 2, "test": 20}
    assert rows.splits["test"][0].source == "some/name:test"


def test_the_embedded_data_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {**ALPACA, "target": "medicine"}
    rows = read_splits(settings("medicine", columns, splits=("train.jsonl", "validation.jsonl", "test.jsonl")))
    assert all(rows.splits[name] for name in SPLITS)
    assert all(row.target and row.target in row.output for row in flat(rows))
    assert rows.duplicates_across_splits == 0


def test_empty_splits_are_faults_where_rows_were_asked_for(tmp_path: Path) -> None:
    for shares in ((0.1, 0.1), (0.1, 0)):
        assert "has 1 rows, too few for training, validation and test; add rows" in fault(
            jsonl(tmp_path, ROWS[:1]), fractions=shares
        )
    assert "leave none of 4 rows for training; lower them" in fault(jsonl(tmp_path, ROWS[:4]), fractions=(0.5, 0.49))
    assert "data.fractions.test=1.0" in fault(jsonl(tmp_path, ROWS), fractions=(0, 1.0))
    assert "data.fractions.test=nan" in fault(jsonl(tmp_path, ROWS), fractions=(0, float("nan")))
    none = read_splits(settings(jsonl(tmp_path, ROWS), fractions=(0, 0)))
    assert [len(none.splits[name]) for name in SPLITS] == [20, 0, 0]
    bad = jsonl(tmp_path, [{"instruction": "q", "input": "", "output": ""}])
    assert "has no usable row (1 rows read, 1 bad)" in fault(bad, on_bad_row="skip")


def test_importing_the_data_stage_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    heavy = "torch", "transformers", "datasets", "pyarrow"
    modules = "harness.data.dataset, harness.data.tokenize"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_real_files_read_with_a_column_mapping() -> None:
    gsm8k = read_splits(
        settings(shared("gsm8k"), {"instruction": "question", "output": "answer"}, splits=("train", None, "test"))
    )
    assert [len(gsm8k.splits[name]) for name in SPLITS] == [6726, 747, 1319]
    seeds = {"instruction": "instruction", "input": "instances.0.input", "output": "instances.0.output"}
    assert len(flat(read_splits(settings(shared("self_instruct/seed_tasks.jsonl"), seeds)))) == 175
    ner = read_splits(settings(shared("tcm_ner/dev.json"), {"instruction": "input", "output": "target"}))
    assert len(flat(ner)) == 657
    # Several answers for each meaning: a cut by rows would put one meaning on both sides.
    e2e = read_splits(settings(shared("e2e_nlg/devset.csv"), {"instruction": "mr", "output": "ref"}))
    references = [text for row in flat(e2e) for text in row.all_references]
    file = shared("e2e_nlg/devset.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        assert set(references) == {line["ref"] for line in csv.DictReader(stream)}
    held_out = [*e2e.splits["validation"], *e2e.splits["test"]]
    assert len({row.instruction for row in held_out}) == len(held_out) < 547
    assert all(not row.references for row in e2e.splits["train"])
    assert e2e.duplicates_across_splits == 0
