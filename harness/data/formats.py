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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.config.schema import RowFormat
from harness.data import corpora
from harness.data.json_rows import BrokenRow, RawRow, json_lines_rows, json_rows
from harness.data.packed import UNPACKERS, inner_name, unpacked
from harness.data.unreadable import Unreadable, decoded, foreign_kind
from harness.errors import DataFault, first_line


def read_file(file: Path, format: str = RowFormat.alpaca) -> list[RawRow]:
    """Raw rows of one file; its ending chooses the parser, and for JSON and CSV its content too.

    Row numbers: the line in JSONL; elsewhere the position of the row, not counting a CSV header.
    Raises DataFault when the file as a whole cannot be read.
    """
    try:
        content = file.read_bytes()
    except OSError as fault:
        reason = fault.strerror or fault
        raise DataFault(f"data file {file}: {reason}; check data.path and data.splits") from fault
    try:
        content = unpacked(content)
        parse = _parquet if content[:4] == b"PAR1" else parsers(format).get(ending(file))
        if parse is None or foreign_kind(content):
            raise Unreadable(foreign_kind(content) or _unknown_ending(file, format))
        return list(parse(content))
    except Unreadable as fault:
        raise DataFault(f"data file {file}: {fault}") from fault


def ending(file: Path | str) -> str:
    """The ending that says what a file holds, in lower case; that of a compression is left out (``.jsonl.gz``)."""
    return Path(inner_name(Path(file).name)).suffix.lower()


def is_data_file(name: str, format: str = RowFormat.alpaca) -> bool:
    """Whether a file of this name can hold rows. Hidden files do not: macOS writes ``._train.jsonl`` beside files."""
    return not name.startswith(".") and ending(name) in parsers(format)


def parsers(format: str) -> "Mapping[str, Callable[[bytes], Iterator[RawRow]]]":
    """The parser for each ending."""
    if format is RowFormat.snips:
        return {".json": corpora.snips}
    if format is RowFormat.tcm_ner:
        return {".json": corpora.tcm_instructions, **dict.fromkeys(corpora.TAGGED, corpora.tcm_tags)}
    return PARSERS


def _unknown_ending(file: Path, format: str) -> str:
    kinds = ", ".join(parsers(format))
    packed = ", ".join(UNPACKERS)
    return (
        f"data.format={format} cannot tell what it holds from its ending {ending(file) or '(none)'}; write its "
        f"rows as one of {kinds} (each may be compressed: {packed})"
    )


def _csv(content: bytes) -> Iterator[RawRow]:
    return _separated(decoded(content), None)


def _tsv(content: bytes) -> Iterator[RawRow]:
    return _separated(decoded(content), "\t")


def _separated(text: str, separator: str | None) -> Iterator[RawRow]:
    # The limit of 128 KiB per cell is process-wide; raised for this file only, because long texts are fine.
    before = csv.field_size_limit(2**31 - 1)
    try:
        kind = separator or _separator(text)
        yield from _csv_rows(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=kind))
    finally:
        csv.field_size_limit(before)


def _separator(text: str) -> str:
    """A comma, or what spreadsheets write instead: a tab or semicolon, if the header line has that and no comma."""
    header = text.split("\n", 1)[0]
    return next((mark for mark in ("\t", ";") if "," not in header and mark in header), ",")


def _csv_rows(reader: Iterator[list[str]]) -> Iterator[RawRow]:
    try:
        header = next(reader, None)
    except csv.Error as fault:
        raise Unreadable(f"its header line is broken: {fault}; put double quotes around names with quotes") from fault
    if header is None:
        return
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Unreadable(f"its header names {twice[0]!r} twice; rename one of the two columns")
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
        raise Unreadable(
            f"not a Parquet file that can be read ({first_line(fault)}); if it was downloaded, download it again"
        ) from fault
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Unreadable(f"it has two columns named {twice!r}; rename one of them")
    for index in range(table.num_rows):
        try:
            value: Any = table.slice(index, 1).to_pylist()[0]
        except Exception as fault:  # One cell's bytes are not UTF-8, or a date is out of range.
            value = BrokenRow(f"unreadable cell ({first_line(fault)})")
        yield index + 1, value


def _json(content: bytes) -> Iterator[RawRow]:
    return json_rows(decoded(content))


def _jsonl(content: bytes) -> Iterator[RawRow]:
    return json_lines_rows(decoded(content))


PARSERS: dict[str, Callable[[bytes], Iterator[RawRow]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
