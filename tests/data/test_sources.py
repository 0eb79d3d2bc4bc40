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
