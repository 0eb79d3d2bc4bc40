"""Rows: read, checked, split and limited. No torch here.

``read`` turns ``data.*`` into three splits of ``Row``. Every row is either accepted or named with its file,
row number and reason; with ``data.on_bad_row=error`` the first ten are listed in one error. Which row goes
where depends on the rows and ``data.split_seed`` only, never on the run's seed: every method sees the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema import Data, OnBadRow, RowFormat
from harness.data.formats import RawRow, read_file
from harness.data.hub import read_hub
from harness.data.rows import BadRow, Row, check_all
from harness.data.sources import locate_data, split_files
from harness.data.splits import SPLITS, cut, duplicates, limited, rows_digest
from harness.errors import DataFault, raise_together

_SHOWN = 10


@dataclass(frozen=True)
class SplitRows:
    """The data set of a run. ``splits`` has exactly the keys train, validation and test.

    ``digest`` is the SHA-256 over all rows in order. ``duplicates_across_splits`` counts the validation and
    test rows whose prompt also stands in an earlier split (train, validation, test): a leak to report.
    """

    splits: dict[str, tuple[Row, ...]]
    bad: tuple[BadRow, ...]
    digest: str
    duplicates_across_splits: int


def read_splits(data: Data, cache: Path | None = None) -> SplitRows:
    """All rows that ``data`` names. ``cache``: where hub downloads are kept; None: the user's own cache.

    Raises DataFault for a source that cannot be read, for bad rows unless ``data.on_bad_row=skip``, and for a
    split that the configuration names but that has no usable row. A split that is not named and has the
    fraction 0 is empty.
    """
    raise_together(_data_faults(data), DataFault)
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
    cuts = cut(found, data)
    splits = {name: limited(cuts[name], getattr(data.limits, name), data.split_seed, name) for name in SPLITS}
    return SplitRows(splits, tuple(bad), rows_digest(splits), duplicates(splits))


def bad_rows_fault(bad: Sequence[BadRow], seen: int) -> DataFault:
    """One error for all of ``bad``: the first ten in full, the rest as a count; ``seen`` rows were read."""
    lines = [f"  {row.source}, row {row.number}: {row.reason}" for row in bad[:_SHOWN]]
    if len(bad) > _SHOWN:
        lines.append(f"  ... and {len(bad) - _SHOWN} more")
    head = f"{len(bad)} of {seen} rows cannot be used (data.on_bad_row=error):"
    tail = "Mend these rows, or set data.on_bad_row=skip to leave them out and record their number"
    return DataFault("\n".join([head, *lines, tail]))


def _data_faults(data: Data) -> list[str]:
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


def _records(data: Data, cache: Path | None) -> dict[str, tuple[str, list[RawRow]]]:
    """Name and raw records of each split that has a source of its own."""
    place = locate_data(data.path)
    if place is not None:
        files = split_files(place, data)
        _refuse_shared_rows(list(files.items()))
        return {split: (file.name, read_file(file)) for split, file in files.items()}
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    names = {"train": "train", **names}
    _refuse_shared_rows(list(names.items()))
    return {
        split: (f"{data.path}:{name}", read_hub(data.path, name, data.subset, data.revision, cache))
        for split, name in names.items()
    }


def _refuse_shared_rows(sources: Sequence[tuple[str, Any]]) -> None:
    for index, (split, source) in enumerate(sources):
        for other, same in sources[:index]:
            if source == same:
                raise DataFault(
                    f"data.splits.{split} and data.splits.{other} are both {source}: two splits would share"
                    f" every row; set data.splits.{split}=null to cut it by data.fractions"
                )
