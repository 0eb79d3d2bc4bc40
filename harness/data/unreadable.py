"""Why a file as a whole cannot be read: not text, or of a kind that only another program reads."""


class Unreadable(Exception):
    """The file as a whole is unreadable; the text says why and what to do."""


# First bytes of files that people hand over as data, and what to do about each.
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "it is an old Office file; open it in Office and save it as CSV (UTF-8)"),
    (b"\x00\x05\x16\x07", "it is a resource file of macOS, without rows; name the file without the leading ._"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd; unpack it first: zstd -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive; unpack it first: 7z x FILE"),
    (b"ARROW1", "it is an Arrow file; write it as rows: datasets.Dataset.from_file(FILE).to_json('rows.jsonl')"),
    (
        b"SQLite format 3",
        "it is a SQLite database; export the table: sqlite3 -header -csv FILE 'SELECT ...' > rows.csv",
    ),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the data; fetch the data: git lfs pull"),
)
_ZIP = b"PK\x03\x04"


def foreign_kind(content: bytes) -> str | None:
    """What this file is and what to do, if its first bytes show a kind that is not read; else None."""
    if content[:4] == _ZIP:
        if b"xl/workbook.xml" in content:
            return "it is an Excel workbook; open it in Excel and save the sheet as CSV (UTF-8)"
        return "it is a zip archive; unpack it first (unzip FILE) and set data.path to the extracted file or folder"
    return next((text for start, text in _FOREIGN if content.startswith(start)), None)


def decoded(content: bytes) -> str:
    """The text of a file, UTF-8 with or without a byte-order mark; other bytes become lone surrogates.

    Raises:
        Unreadable: it is UTF-16.
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Unreadable("it is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW_FILE")
    return content.decode("utf-8-sig", errors="surrogateescape")
