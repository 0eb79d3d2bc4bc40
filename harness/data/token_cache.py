"""Token ids of large data, kept on disk as Arrow under a hash of all that decides them: texts and tokenizer.

What a row makes of its ids (limits, cut completions, refused rows) is computed each time and cannot be stale. Kept in
``$PEFT_HARNESS_CACHE/tokens``, of which any file may be deleted. 8,800 rows of GSM8K take 3.7 s, and 1.0 s with them.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from harness.record.files import replacing
from harness.runtime.caches import cache_folder

log = logging.getLogger(__name__)

LARGE = 300_000  # characters; fewer are tokenized in the time that the hash of a tokenizer takes
MOST = 2 << 30  # bytes of the whole cache; beyond them, files go that were not read for longest
FORMAT = "1"

_digests: "WeakKeyDictionary[Any, tuple[Any, str]]" = WeakKeyDictionary()  # of tokenizers, with what they were taken at


def ids_of(
    texts: Sequence[str], tokenizer: Any, special: bool, tokenized: Callable[[], list[list[int]]]
) -> list[list[int]]:
    """What ``tokenized()`` returns, the ids of each text, or returned for the same texts and tokenizer before.

    Args:
        special: whether the tokenizer adds its special tokens.
    """
    if sum(map(len, texts)) < LARGE or getattr(tokenizer, "backend_tokenizer", None) is None:
        return tokenized()
    path = cache_folder() / "tokens" / f"{_key(texts, tokenizer, special)}.arrow"
    found = _read(path, len(texts))
    if found is None:
        found = tokenized()
        _write(path, found)
    return found


def _key(texts: Sequence[str], tokenizer: Any, special: bool) -> str:
    result = hashlib.sha256(f"{FORMAT} {special} {tokenizer_digest(tokenizer)}".encode())
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        result.update(len(content).to_bytes(8, "little"))
        result.update(content)
    return result.hexdigest()[:40]


def tokenizer_digest(tokenizer: Any) -> str:
    """A hash of everything that a fast tokenizer makes ids by, the versions of its libraries among it."""
    import tokenizers
    import transformers

    core = tokenizer.backend_tokenizer
    # Reading a vocabulary of 262,000 tokens takes 0.4 s; what callers can change later is compared each time.
    now = (len(tokenizer), str(core.truncation), str(core.padding), str(tokenizer.special_tokens_map))
    kept = _digests.get(tokenizer)
    if kept is None or kept[0] != now:
        versions = f"{tokenizers.__version__} {transformers.__version__} {type(tokenizer).__qualname__} {now}"
        kept = _digests[tokenizer] = (now, hashlib.sha256((versions + core.to_str()).encode()).hexdigest())
    return kept[1]


def _read(path: Path, rows: int) -> list[list[int]] | None:
    """The ids in the file; None if there is none, or it is damaged."""
    import pyarrow  # type: ignore[import-untyped]

    try:
        with pyarrow.memory_map(str(path)) as file:
            table = pyarrow.ipc.open_file(file).read_all()
            column = table.column("ids").combine_chunks()
            values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
            if len(column) != rows or table.schema.metadata[b"sha256"].decode() != _checksum(values, offsets):
                raise ValueError(f"it has {len(column)} rows instead of {rows}, or other ids than were written")
            flat, bounds = values.tolist(), offsets.tolist()
        with suppress(OSError):
            os.utime(path)  # it was read now
        return [flat[start:end] for start, end in pairwise(bounds)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        log.warning("%s is not a valid file of token ids (%s); tokenizing again", path, error)
        return None


def _write(path: Path, ids: list[list[int]]) -> None:
    """Keep the ids; a full or read-only disk costs the next command its time, and no more."""
    import numpy
    import pyarrow

    offsets = numpy.cumsum([0, *map(len, ids)], dtype=numpy.int64)
    values = numpy.fromiter((number for row in ids for number in row), dtype=numpy.int32, count=int(offsets[-1]))
    column = pyarrow.LargeListArray.from_arrays(offsets, values)
    schema = pyarrow.schema([("ids", column.type)], metadata={"sha256": _checksum(values, offsets)})
    try:
        with (
            replacing(path) as partial,
            pyarrow.OSFile(str(partial), "wb") as file,
            pyarrow.ipc.new_file(file, schema) as writer,
        ):
            writer.write_table(pyarrow.table([column], schema=schema))
        _prune(path.parent)
    except OSError as error:
        log.warning("cannot keep token ids in %s (%s)", path.parent, error)


def _checksum(values: Any, offsets: Any) -> str:
    """Of the arrays of a file."""
    return hashlib.sha256(values.tobytes() + offsets.tobytes()).hexdigest()


def _prune(folder: Path) -> None:
    """Delete the files that were not read for longest, until the rest fits."""
    found = []
    for path in folder.glob("*.arrow"):
        with suppress(OSError):  # another process may delete it
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= MOST:
            break
        with suppress(OSError):
            path.unlink()
            total -= size
