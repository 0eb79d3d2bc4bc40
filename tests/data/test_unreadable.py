"""Files of other programs: each is named, with what to type."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.data_cases import fault


def _zip(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.zip", _zip("rows.jsonl"), "unpack it first (unzip FILE)"),
        ("rows.jsonl", _zip("rows.jsonl"), "it is a zip archive"),
        ("rows.xlsx", _zip("xl/workbook.xml"), "save the sheet as CSV"),
        ("rows.tar.gz", _tar(), "tar xf FILE"),
        ("rows.xls", b"\xd0\xcf\x11\xe0" + bytes(40), "save it as CSV"),
        ("._train.jsonl", b"\x00\x05\x16\x07", "name the file without the leading ._"),
        ("rows.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(9), "zstd -d FILE"),
        ("data.arrow", b"ARROW1\0\0", "to_json('rows.jsonl')"),
        ("rows.db", b"SQLite format 3\0", "sqlite3 -header -csv"),
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("rows.jsonl", "{}".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 FILE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time they were made
)
def test_a_file_of_another_program_says_what_it_is_and_what_to_type(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in fault(tmp_path / name)
