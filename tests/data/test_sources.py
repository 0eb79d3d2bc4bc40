"""Where rows come from, and the hashes of local files."""

import hashlib
from pathlib import Path

import pytest

from harness.data.dataset import read_splits
from harness.data.sources import data_sha256, text_sha256
from harness.data.splits import SPLITS
from harness.errors import DataFault
from tests.support.data_cases import ROWS, fault, jsonl, settings


@pytest.mark.parametrize(
    "path", ["missing.jsonl", "./missing", "/nowhere/at/all", "a/b/c", "x\0y", "n" * 5000, "~nobody-here/x"]
)
def test_a_missing_path_is_reported_with_where_it_was_searched(path: str) -> None:
    text = fault(path)
    assert "data.path=" in text
    assert "no such file or folder" in text
    with pytest.raises(DataFault, match="no such file"):
        data_sha256(settings(path))


def test_folder_splits_take_names_with_or_without_ending(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS, "train.jsonl")
    jsonl(tmp_path, ROWS[:3], "held.jsonl")
    rows = read_splits(settings(tmp_path, splits=("train", None, "held.jsonl"), fractions=(0.5, 0.4)))
    assert [len(rows.splits[name]) for name in SPLITS] == [10, 10, 3]
    assert rows.duplicates_across_splits == 3
    assert "data.splits.test=gone is not a file in" in fault(tmp_path, splits=("train", None, "gone"))
    assert "both" in fault(tmp_path, splits=("train", "held", "held.jsonl"))
    assert "holds 2 data files" in fault(tmp_path)
    (tmp_path / "held.csv").write_text("instruction,output\n", encoding="utf-8")
    assert "matches held.csv, held.jsonl" in fault(tmp_path, splits=("train", None, "held"))
    assert "is a single file" in fault(tmp_path / "train.jsonl", splits=("train", None, "test"))


def test_hashes_follow_content(tmp_path: Path) -> None:
    file = jsonl(tmp_path, ROWS)
    assert data_sha256(settings(file)) == hashlib.sha256(file.read_bytes()).hexdigest()
    folder = settings(tmp_path, splits=("rows", None, None))
    assert data_sha256(folder) == data_sha256(settings(file))
    assert text_sha256(str(file)) == data_sha256(settings(file))
    with pytest.raises(DataFault, match=r"scoring\.forgetting=nothing: no such file"):
        text_sha256("nothing")


def test_the_parts_of_a_split_are_read_together_in_their_order(tmp_path: Path) -> None:
    for number in range(2):
        jsonl(tmp_path, ROWS[number * 10 : number * 10 + 10], f"train-{number:05}-of-00002.jsonl")
    (tmp_path / "._train-00000-of-00002.jsonl").write_bytes(b"\x00\x05\x16\x07")
    whole = read_splits(settings(tmp_path, fractions=(0, 0)))
    assert [row.output for row in whole.splits["train"]] == [row["output"] for row in ROWS]
    assert [row.source for row in whole.splits["train"]][9:11] == [f"train-0000{n}-of-00002.jsonl" for n in range(2)]
    jsonl(tmp_path, ROWS[:3], "test-00000-of-00001.jsonl")
    text = fault(tmp_path)
    assert "holds 3 data files" in text
    assert "data.splits.train=train (* matches several)" in text
    named = read_splits(settings(tmp_path, splits=("train", None, "test"), fractions=(0, 0)))
    assert [len(named.splits[name]) for name in SPLITS] == [20, 0, 3]
    before = data_sha256(settings(tmp_path, splits=("train", None, "test")))
    jsonl(tmp_path, ROWS[:10], "train-00001-of-00002.jsonl")
    assert data_sha256(settings(tmp_path, splits=("train", None, "test"))) != before
    (tmp_path / "train-00001-of-00002.jsonl").unlink()
    assert "part train-00001-of-00002 is missing (1 of 2 parts are there)" in fault(
        tmp_path, splits=("train", None, "test")
    )


def test_a_pattern_names_several_files_and_no_file_twice(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS[:10], "train_a.jsonl")
    jsonl(tmp_path, ROWS[10:], "train_b.jsonl")
    jsonl(tmp_path, ROWS[:3], "check_a.jsonl")
    rows = read_splits(settings(tmp_path, splits=("train_*", None, "check_*.jsonl"), fractions=(0, 0)))
    assert [len(rows.splits[name]) for name in SPLITS] == [20, 0, 3]
    assert "both" in fault(tmp_path, splits=("train_*", None, "*_a*"))
    assert "is not a file in" in fault(tmp_path, splits=("nothing_*", None, None))


def test_a_folder_without_rows_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "._train.jsonl").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "inside").mkdir()
    text = fault(tmp_path)
    assert "the folder holds no data file (.json, .jsonl" in text
    assert "it has the folders inside: set data.path to one of them" in text
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    assert "load_from_disk" in fault(tmp_path)
