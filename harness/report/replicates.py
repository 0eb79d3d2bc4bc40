"""Runs that differ in their seed alone, as one row: mean and spread. Reads records only, as ``report`` does."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.plan.spec import digest
from harness.report.cells import NOTHING, TableRow, words
from harness.report.table import EVERY, Column, Table, score_column
from harness.scoring.catalog import digits

TITLE = "over seeds: mean ± sample standard deviation"


def seed_table(runs: Table, records: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """One row a group of at least two finished runs of one code; None where there is no such group.

    Cells that share a run are no replicates, and count once. Spreads divide by n - 1.

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
    made = [_row(rows, figures, records) for rows in repeated]
    return Table(made, _columns(runs.scores), runs.scores) if made else None


def _row(rows: Sequence[TableRow], figures: Sequence[str], records: Mapping[str, Mapping[str, Any]]) -> TableRow:
    settings = [words(row["setting"]) for row in rows]
    common = [word for word in settings[0] if all(word in other for other in settings[1:])]
    made: TableRow = {
        "rows": " ".join(str(row["row"]) for row in rows),
        "method": rows[0]["method"],
        "setting": " ".join(common),
        "seeds": " ".join(str(records[row["fingerprint"]]["plan"]["seed"]) for row in rows),
        "n": len(rows),
        "trainable_parameters": rows[0]["trainable_parameters"],
    }
    for name in figures:
        known = [row[name] for row in rows if row[name] is not None]
        whole = len(known) == len(rows)  # a mean over fewer seeds than its neighbours' would mislead
        made[name] = statistics.fmean(known) if whole else None
        made[f"{name}_sd"] = statistics.stdev(known) if whole else None
    return made


def _columns(scores: Sequence[str]) -> list[Column]:
    return [
        Column("rows", "rows", lambda row: _ranges(row["rows"]), is_text=True, block=EVERY),
        Column("method", "method", lambda row: row["method"], is_text=True, block=EVERY),
        Column("setting", "setting", lambda row: row["setting"], is_text=True, folds=True, block=EVERY),
        Column("n", "seeds", lambda row: str(row["n"]), block=EVERY),
        Column("validation_loss", "val. loss", _spread("validation_loss"), block="scores"),
        *(score_column(name, _spread(name)) for name in scores),
    ]


def _spread(name: str) -> Callable[[TableRow], str]:
    def show(row: TableRow) -> str:
        mean, deviation = row[name], row[f"{name}_sd"]
        if mean is None:
            return NOTHING
        places = digits(name, abs(mean)) if name != "validation_loss" else 3
        return f"{mean:.{places}f} ± {deviation:.{places}f}"

    return show


def _ranges(numbers: str) -> str:
    """``1-3, 7`` for ``1 2 3 7``."""
    said: list[list[int]] = []
    for number in map(int, numbers.split()):
        if said and said[-1][-1] == number - 1:
            said[-1].append(number)
        else:
            said.append([number])
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else str(each[0]) for each in said)
