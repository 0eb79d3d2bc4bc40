"""Rows: read, checked, split and limited. No torch here.

``read`` turns ``data.*`` into three splits of ``Row``. Every row is either accepted or named with its file,
row number and reason; with ``data.on_bad_row=error`` the first ten are listed in one error. Which row goes
where depends on the rows and ``data.split_seed`` only, never on the run's seed: every method sees the same.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import shipped
from harness.errors import DataFault, raise_together
from harness.readers import PARSERS, Record, read_file, read_hub
from harness.rows import BadRow, Row, check_all
from harness.schema import Data, OnBadRow, RowFormat

SPLITS = ("train", "validation", "test")
_SHOWN = 10


@dataclass(frozen=True)
class Rows:
    """The data set of a run. ``splits`` has exactly the keys train, validation and test.

    ``digest`` is the SHA-256 over all rows in order. ``duplicates_across_splits`` counts the validation and
    test rows whose prompt also stands in an earlier split (train, validation, test): a leak to report.
    """

    splits: dict[str, tuple[Row, ...]]
    bad: tuple[BadRow, ...]
    digest: str
    duplicates_across_splits: int


def read(data: Data, cache: Path | None = None) -> Rows:
    """All rows that ``data`` names. ``cache``: where hub downloads are kept; None: the user's own cache.

    Raises DataFault for a source that cannot be read, for bad rows unless ``data.on_bad_row=skip``, and for a
    split that the configuration names but that has no usable row. A split that is not named and has the
    fraction 0 is empty.
    """
    raise_together(_setting_faults(data), DataFault)
    found: dict[str, list[Row]] = {}
    bad: list[BadRow] = []
    seen = 0
    for split, (source, records) in _records(data, cache).items():
        seen += len(records)
        found[split], faults = check_all(records, source, data)
        bad += faults
        if not found[split] and (not faults or data.on_bad_row is OnBadRow.skip):
            raise DataFault(
                f"data.splits.{split}: {source} has no usable row ({len(records)} rows read, {len(faults)}"
                " bad); check data.path, data.format and data.columns"
            )
    if bad and data.on_bad_row is OnBadRow.error:
        raise bad_rows_fault(bad, seen)
    cuts = _cut(found, data)
    splits = {name: _limit(cuts[name], getattr(data.limits, name), data.split_seed, name) for name in SPLITS}
    return Rows(splits, tuple(bad), _digest(splits), _duplicates(splits))


def file_digest(data: Data) -> str | None:
    """SHA-256 of the bytes of the local data files; None for a hub name.

    One file has the digest that ``sha256sum`` shows; of several, the digest is over ``split:digest`` lines.
    Raises DataFault where a file is missing.
    """
    place = locate(data.path)
    if place is None:
        return None
    digests = {split: _sha256(file) for split, file in _files(place, data).items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{split}:{digest}\n" for split, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def text_digest(path: str) -> str:
    """SHA-256 of the file that ``scoring.forgetting`` names; raises DataFault where it is missing."""
    place = locate(path, "scoring.forgetting")
    if place is None:
        raise DataFault(f"scoring.forgetting={path}: no such file; correct the path, or set it to null")
    return _sha256(place)


def locate(path: str, key: str = "data.path") -> Path | None:
    """The file or folder that ``path`` means; None when it can only be a hub name.

    Looked for from the working folder, then inside the data that the project ships (``medicine``).
    Raises DataFault for a path that is missing here and is no possible hub name either; it names ``key``.
    """
    # os.path, not Path: an impossible name (too long, a NUL in it, an unknown ~user) is a missing one.
    local = Path(os.path.expanduser(path))
    for place in (local, shipped("data") / local):
        if path and os.path.exists(place):
            return place
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", path, re.ASCII) is not None
    if is_name and len(path) <= 96 and Path(path).suffix.lower() not in PARSERS:
        return None
    where = f"looked from {Path.cwd()} and in {shipped('data')}"
    raise DataFault(f"{key}={path!r}: no such file or folder ({where}); correct the path")


def bad_rows_fault(bad: Sequence[BadRow], seen: int) -> DataFault:
    """One error for all of ``bad``: the first ten in full, the rest as a count; ``seen`` rows were read."""
    lines = [f"  {row.source}, row {row.number}: {row.reason}" for row in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  ... and {len(bad) - _SHOWN} more")
    head = f"{len(bad)} of {seen} rows cannot be used (data.on_bad_row=error):"
    tail = "Mend these rows, or set data.on_bad_row=skip to leave them out and record their number"
    return DataFault("\n".join([head, *lines, tail]))


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise DataFault(f"data file {file}: {fault.strerror or fault}; check the path") from fault


def _setting_faults(data: Data) -> list[str]:
    faults = []
    needed = ("messages",) if data.format is RowFormat.messages else ("instruction", "output")
    for name in needed:
        if not getattr(data.columns, name):
            need = f"data.format={data.format.value} needs it"
            faults.append(f"data.columns.{name}=null: {need}; name the column")
    fractions = {"validation": data.fractions.validation, "test": data.fractions.test}
    for name, share in fractions.items():
        if not 0 <= share < 1:
            faults.append(f"data.fractions.{name}={share}: must be at least 0 and below 1")
    for name in SPLITS:
        limit = getattr(data.limits, name)
        if limit is not None and limit < 1:
            faults.append(f"data.limits.{name}={limit}: must be at least 1, or null for all rows")
    return faults


def _files(place: Path, data: Data) -> dict[str, Path]:
    """File of each split that the configuration names; ``train`` always has one."""
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    held_out = [name for name in names if name != "train"]
    if not place.is_dir():
        if held_out:
            raise DataFault(
                f"data.splits.{held_out[0]}={names[held_out[0]]}: data.path={data.path} is a single file;"
                f" set data.splits.{held_out[0]}=null (data.fractions then cuts it from the file), or set"
                " data.path to the folder"
            )
        return {"train": place}
    if "train" not in names:
        inside = _data_files(place)
        if len(inside) != 1:
            raise DataFault(
                f"data.splits.train=null: the folder data.path={data.path} holds {len(inside)} data files"
                f" ({', '.join(inside[:5]) or 'none'}); name the training file"
            )
        names = {"train": inside[0], **names}
    return {split: _inside(place, name, split) for split, name in names.items()}


def _data_files(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if Path(name).suffix.lower() in PARSERS)
    except OSError as fault:
        raise DataFault(f"data.path={folder}: {fault.strerror or fault}; make the folder readable") from fault


def _inside(folder: Path, name: str, split: str) -> Path:
    """``name`` in ``folder``, its ending optional where only one file fits."""
    candidates = [folder / name] if Path(name).suffix.lower() in PARSERS else []
    candidates += [folder / f"{name}{ending}" for ending in PARSERS]
    present = [file for file in candidates if os.path.isfile(file)]
    if len(present) == 1:
        return present[0]
    state = f"fits {', '.join(file.name for file in present)}" if present else f"is no file in {folder}"
    raise DataFault(f"data.splits.{split}={name} {state}; give the full name of a file in that folder")


def _records(data: Data, cache: Path | None) -> dict[str, tuple[str, list[Record]]]:
    """Name and raw records of each split that has a source of its own."""
    place = locate(data.path)
    if place is not None:
        files = _files(place, data)
        _refuse_shared(list(files.items()))
        return {split: (file.name, read_file(file)) for split, file in files.items()}
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    names = {"train": "train", **names}
    _refuse_shared(list(names.items()))
    return {
        split: (f"{data.path}:{name}", read_hub(data.path, name, data.subset, data.revision, cache))
        for split, name in names.items()
    }


def _refuse_shared(sources: Sequence[tuple[str, Any]]) -> None:
    for index, (split, source) in enumerate(sources):
        for other, same in sources[:index]:
            if source == same:
                raise DataFault(
                    f"data.splits.{split} and data.splits.{other} are both {source}: two splits would share"
                    f" every row; set data.splits.{split}=null to cut it by data.fractions"
                )


def _prompt_key(row: Row) -> str:
    return json.dumps(row.messages[:-1], ensure_ascii=False)


def _rank(seed: int, *parts: str) -> bytes:
    """Place of something in a random order that no library version changes."""
    return hashlib.sha256("\0".join([str(seed), *parts]).encode()).digest()


def _cut(found: dict[str, list[Row]], data: Data) -> dict[str, list[Row]]:
    """All three splits; those without a source are cut from train, in the source's order.

    Rows are ordered by a hash of seed and prompt, so that rows of one prompt stand together: a cut that would
    part them leaves them in train. The share is a share of the rows that train had before any cut.
    """
    rows = found["train"]
    keys = [_rank(data.split_seed, "split", _prompt_key(row)) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (keys[index], index))
    shares = {"test": data.fractions.test, "validation": data.fractions.validation}
    start, cuts = 0, dict(found)
    for name, share in shares.items():
        if name in found:
            continue
        wanted = min(start + max(1, round(share * len(rows))), len(rows)) if share else start
        end = wanted
        while start < end < len(rows) and keys[order[end - 1]] == keys[order[end]]:
            end -= 1
        if end == start:  # One prompt fills the whole cut: take it as asked, and count the duplicates.
            end = wanted
        cuts[name] = [rows[index] for index in sorted(order[start:end])]
        start = end
    cuts["train"] = [rows[index] for index in sorted(order[start:])]
    if not cuts["train"]:
        raise DataFault(
            f"data.fractions: validation={data.fractions.validation} and test={data.fractions.test} leave"
            f" none of {len(rows)} rows for training; lower them"
        )
    return {name: cuts[name] for name in SPLITS}


def _limit(rows: Sequence[Row], limit: int | None, seed: int, split: str) -> tuple[Row, ...]:
    """A sample in the source's order. A smaller limit draws a subset of what a larger one draws."""
    if limit is None or limit >= len(rows):
        return tuple(rows)
    drawn = sorted(range(len(rows)), key=lambda i: _rank(seed, "limit", split, str(rows[i].number)))[:limit]
    return tuple(rows[index] for index in sorted(drawn))


def _digest(splits: dict[str, tuple[Row, ...]]) -> str:
    total = hashlib.sha256()
    for name in SPLITS:
        for row in splits[name]:
            fields = (name, row.instruction, row.input, row.output, row.messages, row.target)
            total.update(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def _duplicates(splits: dict[str, tuple[Row, ...]]) -> int:
    earlier: set[str] = set()
    count = 0
    for name in SPLITS:
        prompts = [_prompt_key(row) for row in splits[name]]
        count += sum(prompt in earlier for prompt in prompts)
        earlier.update(prompts)
    return count
