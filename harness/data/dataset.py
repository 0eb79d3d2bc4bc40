"""The data set of a run: rows read, checked, split and limited. No torch here.

``read_splits`` turns ``data.*`` into three splits of ``Row``. Every row is either accepted or reported with its file,
row number and reason; with ``data.on_bad_row=error`` the first ten are listed in one error. Which split a row goes
to depends on the rows and ``data.split_seed`` only, never on the run's seed: every method sees the same rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema import Data, OnBadRow
from harness.data.checks import data_faults
from harness.data.formats import read_file
from harness.data.hub import read_hub
from harness.data.json_rows import RawRow
from harness.data.row_weights import refuse_missing_weights, weighted
from harness.data.rows import BadRow, Row, check_all
from harness.data.sources import locate_data, split_files
from harness.data.splits import SPLITS, count_duplicates, cut, grouped, limited, one_reference_each
from harness.errors import DataFault, raise_together

LISTED = 10  # bad rows that an error names


@dataclass(frozen=True)
class SplitRows:
    """The data set of a run. ``splits`` has exactly the keys train, validation and test.

    ``bad`` holds the rows that were left out. ``duplicates_across_splits`` counts the validation and test rows whose
    prompt is also in an earlier split (train, validation, test): a leak to report. ``notes``: what else a reader of
    the results must know.
    """

    splits: dict[str, tuple[Row, ...]]
    bad: tuple[BadRow, ...]
    duplicates_across_splits: int
    notes: tuple[str, ...] = ()


def read_splits(data: Data, cache: Path | None = None) -> SplitRows:
    """All rows that ``data`` names. ``cache``: folder for downloads from the hub; None: the user's own cache.

    A split that is neither named nor given a fraction is empty.

    Raises:
        DataFault: the settings are at fault, a source cannot be read, a named split has no usable row, or there are
            bad rows and ``data.on_bad_row=error``.
    """
    raise_together(list(data_faults(data)), DataFault)
    splits: dict[str, list[Row]] = {}
    bad: list[BadRow] = []
    notes: list[str] = []
    count = 0
    for split, sources in read_raw(data, cache).items():
        splits[split], refused, read = [], [], 0
        for source, raw_rows in sources:
            checked = check_all(raw_rows, source, data)
            if split == "train":
                refuse_missing_weights(raw_rows, source, data)
            splits[split] += checked.rows
            refused += checked.bad
            notes += checked.notes
            read += len(raw_rows)
        count += read
        bad += refused
        if not splits[split] and (not refused or data.on_bad_row is OnBadRow.skip):
            raise DataFault(
                f"data.splits.{split}: {' and '.join(source for source, _ in sources)} has no usable row ({read} rows"
                f" read, {len(refused)} bad); check data.path, data.format and data.columns"
            )
    if bad and data.on_bad_row is OnBadRow.error:
        raise bad_rows_fault(bad, count)
    cuts = cut(splits, data)
    cuts["train"] = one_reference_each(cuts["train"])
    for name in ("validation", "test"):
        cuts[name], merged = grouped(cuts[name]) if data.group_by_prompt else (cuts[name], 0)
        if merged:
            notes.append(
                f"{name}: {merged} rows have the prompt of an earlier row; each prompt is one row with all its"
                " references"
            )
    cuts["train"] = weighted(cuts["train"], data)
    drawn = {name: limited(cuts[name], getattr(data.limits, name), data.split_seed, name) for name in SPLITS}
    return SplitRows(drawn, tuple(bad), count_duplicates(drawn), tuple(dict.fromkeys(notes)))


def bad_rows_fault(bad: Sequence[BadRow], count: int) -> DataFault:
    """One error for all of ``bad``, of ``count`` rows in total: the first ten in full, the rest as a number."""
    lines = [f"  {row.source}, row {row.number}: {row.reason}" for row in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED} more")
    head = f"{len(bad)} of {count} rows cannot be used (data.on_bad_row=error):"
    tail = "Fix these rows, or set data.on_bad_row=skip to leave them out and record how many there were"
    return DataFault("\n".join([head, *lines, tail]))


def read_raw(data: Data, cache: Path | None) -> dict[str, list[tuple[str, list[RawRow]]]]:
    """Source name and unchecked rows of each file of a split, for each split that has a source of its own."""
    place = locate_data(data.path)
    if place is not None:
        files = split_files(place, data)
        _refuse_shared_sources(files)
        return {split: [(file.name, read_file(file, data.format)) for file in files[split]] for split in files}
    names = {name: getattr(data.splits, name) for name in SPLITS if getattr(data.splits, name) is not None}
    names = {"train": "train", **names}
    _refuse_shared_sources({split: (name,) for split, name in names.items()})
    return {
        split: [(f"{data.path}:{name}", read_hub(data.path, name, data.subset, data.revision, cache))]
        for split, name in names.items()
    }


def _refuse_shared_sources(sources: Mapping[str, Sequence[Any]]) -> None:
    splits = list(sources)
    for index, split in enumerate(splits):
        for other in splits[:index]:
            shared = [source for source in sources[split] if source in sources[other]]
            if shared:
                raise DataFault(
                    f"data.splits.{split} and data.splits.{other} are both {shared[0]}: two splits would share"
                    f" every row; set data.splits.{split}=null to cut it by data.fractions"
                )
