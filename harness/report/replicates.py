"""Runs that differ only in their seed, as one row: mean and spread. Reads records only."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.plan.spec import digest
from harness.report.cells import NOTHING, TableRow, split_overrides
from harness.report.columns import EVERY_BLOCK, Column, score_columns, setting_columns
from harness.report.table import Table
from harness.scoring.catalog import SCORES, decimals

TITLE = "over seeds: mean ± sample standard deviation"


def seed_table(runs: Table, records: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """One row per group of at least two finished runs of the same code; None if there is no such group.

    Cells that share a run are not replicates: that run counts once. Spreads divide by n - 1.

    Args:
        runs: the table of single runs.
        records: by fingerprint.
    """
    groups: dict[str, list[TableRow]] = defaultdict(list)
    for row in runs.rows:
        if row["state"] == "finished" and row["shares_row"] is None:
            record = records[row["fingerprint"]]
            plan = {key: value for key, value in record["plan"].items() if key != "seed"}
            groups[digest([plan, record["code"]["version"]])].append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    figures = ["validation_loss", *runs.scores]
    rows = [_row(group, figures, records) for group in repeated]
    return Table(rows, _columns(runs.scores), runs.scores) if rows else None


def _row(group: Sequence[TableRow], figures: Sequence[str], records: Mapping[str, Mapping[str, Any]]) -> TableRow:
    settings = [split_overrides(row["setting"]) for row in group]
    common = [part for part in settings[0] if all(part in other for other in settings[1:])]
    row: TableRow = {
        "rows": " ".join(str(single["row"]) for single in group),
        "method": group[0]["method"],
        "setting": " ".join(common),
        "seeds": " ".join(str(records[single["fingerprint"]]["plan"]["seed"]) for single in group),
        "n": len(group),
        "trainable_parameters": group[0]["trainable_parameters"],
    }
    for name in figures:
        values = [single[name] for single in group if single[name] is not None]
        complete = len(values) == len(group)  # a mean over fewer seeds than its neighbors' would mislead
        row[name] = statistics.fmean(values) if complete else None
        row[f"{name}_sd"] = statistics.stdev(values) if complete else None
    return row


def _columns(scores: Sequence[str]) -> list[Column]:
    loss = SCORES["validation_loss"]
    return [
        Column("rows", "rows", lambda row: _ranges(row["rows"]), is_text=True, block=EVERY_BLOCK),
        *setting_columns(),
        Column("n", "seeds", lambda row: str(row["n"]), block=EVERY_BLOCK),
        Column(loss.name, loss.label, _mean_and_spread(loss.name), block="scores"),
        *score_columns(scores, _mean_and_spread),
    ]


def _mean_and_spread(name: str) -> Callable[[TableRow], str]:
    def show(row: TableRow) -> str:
        mean, deviation = row[name], row[f"{name}_sd"]
        if mean is None:
            return NOTHING
        places = decimals(name, abs(mean))
        return f"{mean:.{places}f} ± {deviation:.{places}f}"

    return show


def _ranges(numbers: str) -> str:
    """``1-3, 7`` for ``1 2 3 7``."""
    ranges: list[list[int]] = []
    for number in map(int, numbers.split()):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else str(each[0]) for each in ranges)
