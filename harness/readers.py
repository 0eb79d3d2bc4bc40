"""Files and hub data sets as raw records: pairs of row number and parsed value, not yet judged.

JSON, JSONL and CSV are parsed here, not by ``datasets``: on the way through pandas and Arrow it reads a CSV
cell ``null`` or ``NA`` as missing, turns the answers ``001`` and ``002`` into 1.0 and 2.0, and answers a
broken line with "an error occurred while generating the dataset". An answer is text and has to arrive as it
was written; a fault has to name its row. ``datasets`` loads what stands on the hub, and pyarrow, which it
reads with, the Parquet files.

Text is decoded as UTF-8 (a byte-order mark is allowed). A byte that is not UTF-8 becomes a lone surrogate, so
that the check of each row finds it later and can say where it stands.
"""

import csv
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataFault

log = logging.getLogger(__name__)

HUB_SECONDS = 5.0  # how long the hub may take to say whether it knows a data set

Record = tuple[int, Any]  # row number from 1, parsed value or Broken


@dataclass(frozen=True)
class Broken:
    """In the place of a record that cannot be parsed while its neighbours can."""

    reason: str


def read_file(file: Path) -> list[Record]:
    """Records of one file, its kind chosen by its ending and, for ``.json``, by its content.

    Row numbers: the line in JSONL; elsewhere the position of the record, a CSV header not counted.
    Raises DataFault when the file as a whole cannot be read.
    """
    parse = PARSERS.get(file.suffix.lower())
    if parse is None:
        kinds = ", ".join(PARSERS)
        raise DataFault(f"data file {file}: its ending tells no format; rename it to one of {kinds}")
    try:
        content = file.read_bytes()
    except OSError as fault:
        reason = fault.strerror or fault
        raise DataFault(f"data file {file}: {reason}; check data.path and data.splits") from fault
    try:
        return list(parse(content))
    except _Unreadable as fault:
        raise DataFault(f"data file {file}: {fault}") from fault


def read_hub(path: str, split: str, subset: str | None, revision: str | None, cache: Path | None) -> list[Record]:
    """Records of one split of a hub data set; ``cache`` is where downloads are kept, None: the user's own.

    Without a network a data set that was downloaded before is read from there.
    """
    import datasets

    if not _hub_answers(path, revision):
        # The client would retry an absent network for 23 seconds, loudly; offline, it reads its cache at once.
        import huggingface_hub.constants

        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    where: dict[str, Any] = {"name": subset, "revision": revision, "cache_dir": str(cache) if cache else None}
    try:
        return list(enumerate(datasets.load_dataset(path, split=split, **where), start=1))
    # Too many kinds to list: network, missing name, gated access, the builders' own.
    except Exception as fault:
        raise DataFault(
            f"data.path={path}: no file or folder of this name is here, and reading its split {split!r} from"
            f" the hub failed ({_brief(fault)}). Correct the path, or download the data set where there is"
            " a network and set data.path to the file"
        ) from fault


def _hub_answers(path: str, revision: str | None) -> bool:
    """Whether the hub says anything of this data set within a few seconds; "no such data set" is an answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    answered = threading.Event()

    def ask() -> None:
        try:
            HfApi().dataset_info(path, revision=revision, timeout=HUB_SECONDS)
        except HfHubHTTPError:
            answered.set()
        except Exception as fault:  # whatever a missing network raises, here or below
            log.debug("no answer from the hub: %s", _brief(fault))
        else:
            answered.set()

    # In a thread: a name server that stays silent honours no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return answered.is_set()


class _Unreadable(Exception):
    """The whole file is unreadable; the text says why and what to do."""


def _decode(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Unreadable("it is UTF-16, not UTF-8; save it as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _brief(fault: BaseException) -> str:
    """One printable line of an exception that was not written for readers."""
    first = (str(fault).strip().splitlines() or [""])[0]
    return f"{type(fault).__name__}: {first[:200]}".encode("utf-8", "backslashreplace").decode()


def _why(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, json.JSONDecodeError):
        return f"broken JSON: {fault.msg} at line {fault.lineno}, column {fault.colno}"
    return "a number with too many digits"  # json's one other ValueError: int() past its limit of digits


def _json(content: bytes) -> Iterator[Record]:
    text = _decode(content)
    start = text.lstrip()
    if start.startswith("["):
        return _json_array(text)
    records = list(_json_lines(text))
    if start.startswith("{") and any(isinstance(value, Broken) for _, value in records):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            return iter(records)
        keys = ", ".join(repr(key)[:40] for key in list(whole)[:5])
        raise _Unreadable(f"it is one JSON object (keys {keys}); write a list of rows, or one row per line")
    return iter(records)


_SPACE = re.compile(r"[ \t\r\n]*")


def _json_array(text: str) -> Iterator[Record]:
    """Rows of a JSON list one by one, so that a fault names its row; past a fault there is no way on."""

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


def _json_lines(text: str) -> Iterator[Record]:
    # Not splitlines: it also splits at U+2028 and its like, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as fault:
            yield number, Broken(f"broken JSON: {fault.msg} at column {fault.colno}")
        except (ValueError, RecursionError) as fault:
            yield number, Broken(_why(fault))


def _csv(content: bytes) -> Iterator[Record]:
    text = _decode(content)
    # The limit of 128 KiB a cell holds for the process: raised for this file only. A long text is no fault.
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield from _csv_records(csv.reader(io.StringIO(text, newline=""), strict=True))
    finally:
        csv.field_size_limit(before)


def _csv_records(reader: Iterator[list[str]]) -> Iterator[Record]:
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
            yield number, Broken(f"broken CSV: {fault}")
            continue
        if not cells:  # a blank line
            continue
        number += 1
        if len(cells) > len(header):
            yield number, Broken(f"{len(cells)} cells, but the header names {len(header)} columns")
        else:
            yield number, dict(zip(header, cells, strict=False))


def _parquet(content: bytes) -> Iterator[Record]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content)).read()
    except Exception as fault:  # Bytes at random make pyarrow raise OSError, its own kinds, and others.
        raise _Unreadable(f"not a Parquet file that can be read ({_brief(fault)})") from fault
    for index in range(table.num_rows):
        try:
            value: Any = table.slice(index, 1).to_pylist()[0]
        except Exception as fault:  # One cell's bytes are not UTF-8, or a date is out of range.
            value = Broken(f"unreadable cell ({_brief(fault)})")
        yield index + 1, value


PARSERS: dict[str, Callable[[bytes], Iterator[Record]]] = {
    ".json": _json,
    ".jsonl": lambda content: _json_lines(_decode(content)),
    ".csv": _csv,
    ".parquet": _parquet,
}
