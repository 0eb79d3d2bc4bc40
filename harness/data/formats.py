"""Files as raw rows: pairs of row number and parsed value, not checked yet.

JSON, JSONL and CSV are parsed here, not by ``datasets``, which goes through pandas and Arrow: it reads a CSV cell
``null`` or ``NA`` as missing, turns the answers ``001`` and ``002`` into 1.0 and 2.0, and reports a broken line as
"an error occurred while generating the dataset". An answer is text and must arrive as it was written, and an error
must name its row. Parquet files are read by pyarrow, as ``datasets`` does.

Text is decoded as UTF-8 (a byte-order mark is allowed). A byte that is not UTF-8 becomes a lone surrogate, so that
the check of each row finds it later and can report its position.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataFault, first_line

RawRow = tuple[int, Any]  # row number from 1, parsed value or BrokenRow


@dataclass(frozen=True)
class BrokenRow:
    """In place of a row that cannot be parsed although its neighbors can."""

    reason: str


def read_file(file: Path) -> list[RawRow]:
    """Raw rows of one file; its ending chooses the parser, and for ``.json`` its content too.

    Row numbers: the line in JSONL; elsewhere the position of the row, not counting a CSV header.
    Raises DataFault when the file as a whole cannot be read.
    """
    parse = PARSERS.get(file.suffix.lower())
    if parse is None:
        kinds = ", ".join(PARSERS)
        raise DataFault(f"data file {file}: the format cannot be told from its ending; rename it to one of {kinds}")
    try:
        content = file.read_bytes()
    except OSError as fault:
        reason = fault.strerror or fault
        raise DataFault(f"data file {file}: {reason}; check data.path and data.splits") from fault
    try:
        return list(parse(content))
    except _Unreadable as fault:
        raise DataFault(f"data file {file}: {fault}") from fault


class _Unreadable(Exception):
    """The file as a whole is unreadable; the text says why and what to do."""


def _decode(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Unreadable("it is UTF-16, not UTF-8; save it as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _why(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, json.JSONDecodeError):
        return f"broken JSON: {fault.msg} at line {fault.lineno}, column {fault.colno}"
    return "a number with too many digits"  # json's one other ValueError: int() past its limit of digits


def _json(content: bytes) -> Iterator[RawRow]:
    text = _decode(content)
    start = text.lstrip()
    if start.startswith("["):
        return _json_array(text)
    rows = list(_json_lines(text))
    if start.startswith("{") and any(isinstance(value, BrokenRow) for _, value in rows):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return iter(rows)
        keys = ", ".join(repr(key)[:40] for key in list(whole)[:5])
        raise _Unreadable(f"it is one JSON object (keys {keys}); write a list of rows, or one row per line")
    return iter(rows)


_SPACE = re.compile(r"[ \t\r\n]*")


def _json_array(text: str) -> Iterator[RawRow]:
    """Rows of a JSON list one by one, so that an error names its row; nothing can be read past an error."""

    def skip(at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string as well

    decoder = json.JSONDecoder()
    at, number = skip(text.index("[") + 1), 0
    while text[at : at + 1] != "]" or number:
        number += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as fault:
            raise _Unreadable(f"row {number}: {_why(fault)}; the JSON list is broken there") from fault
        yield number, value
        at = skip(at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            line = text.count("\n", 0, at) + 1
            raise _Unreadable(f"after row {number}: no ',' or ']' at line {line}; the JSON list is broken there")
        at = skip(at + 1)
    if text[skip(at + 1) :]:
        raise _Unreadable(f"text follows the end of the JSON list (after row {number}); remove it")


def _json_lines(text: str) -> Iterator[RawRow]:
    # Not splitlines: it also splits at U+2028 and similar, which may occur inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as fault:
            yield number, BrokenRow(f"broken JSON: {fault.msg} at column {fault.colno}")
        except (ValueError, RecursionError) as fault:
            yield number, BrokenRow(_why(fault))


def _csv(content: bytes) -> Iterator[RawRow]:
    text = _decode(content)
    # The limit of 128 KiB per cell is process-wide; raised for this file only, because long texts are fine.
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield from _csv_rows(csv.reader(io.StringIO(text, newline=""), strict=True))
    finally:
        csv.field_size_limit(before)


def _csv_rows(reader: Iterator[list[str]]) -> Iterator[RawRow]:
    try:
        header = next(reader, None)
    except csv.Error as fault:
        raise _Unreadable(f"its header line is broken: {fault}") from fault
    if header is None:
        return
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _Unreadable(f"its header names {twice[0]!r} twice; rename one of the two columns")
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            number += 1
            yield number, BrokenRow(f"broken CSV: {fault}")
            continue
        if not cells:  # a blank line
            continue
        number += 1
        if len(cells) > len(header):
            yield number, BrokenRow(f"{len(cells)} cells, but the header names {len(header)} columns")
        else:
            yield number, dict(zip(header, cells, strict=False))


def _parquet(content: bytes) -> Iterator[RawRow]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content)).read()
    except Exception as fault:  # Random bytes make pyarrow raise OSError, its own kinds, and others.
        raise _Unreadable(f"not a Parquet file that can be read ({first_line(fault)})") from fault
    for index in range(table.num_rows):
        try:
            value: Any = table.slice(index, 1).to_pylist()[0]
        except Exception as fault:  # One cell's bytes are not UTF-8, or a date is out of range.
            value = BrokenRow(f"unreadable cell ({first_line(fault)})")
        yield index + 1, value


PARSERS: dict[str, Callable[[bytes], Iterator[RawRow]]] = {
    ".json": _json,
    ".jsonl": lambda content: _json_lines(_decode(content)),
    ".csv": _csv,
    ".parquet": _parquet,
}
