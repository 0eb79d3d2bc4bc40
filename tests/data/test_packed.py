"""Compressed files are read by their content, whatever their names are."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from harness.data.dataset import read_splits
from harness.data.packed import inner_name
from tests.support.data_cases import ROWS, fault, flat, jsonl, settings

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.bz2", "rows.jsonl.xz", "rows.JSONL.GZ", "renamed.jsonl"])
def test_a_compressed_file_reads_like_the_file_itself(tmp_path: Path, name: str) -> None:
    content = jsonl(tmp_path, ROWS, "plain.jsonl").read_bytes()
    file = tmp_path / name
    file.write_bytes(PACK.get(file.suffix.lower(), gzip.compress)(content))
    outputs = [row.output for row in flat(read_splits(settings(tmp_path / "plain.jsonl")))]
    assert [row.output for row in flat(read_splits(settings(file)))] == outputs


def test_a_broken_compression_says_so(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-20])
    text = fault(file)
    assert "its gz compression is broken or incomplete" in text
    assert "copy or download it again" in text


def test_the_inner_name_decides_what_a_compressed_file_holds(tmp_path: Path) -> None:
    assert inner_name("rows.csv.gz") == "rows.csv"
    assert inner_name("rows.csv") == "rows.csv"
    (tmp_path / "rows.gz").write_bytes(gzip.compress(b"hello"))
    assert "from its ending (none)" in fault(tmp_path / "rows.gz")
