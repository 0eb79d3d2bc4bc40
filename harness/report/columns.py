"""Columns of a table: headings with units, and how a raw value is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.cells import NOTHING, TableRow
from harness.runtime.terminal import short_count
from harness.scoring.catalog import SCORES, Direction, decimals

EVERY_BLOCK = "every"  # columns that begin the lines of each block
BLOCKS = ("costs", "scores", "losses")  # in the order in which a narrow console shows them


@dataclass(frozen=True)
class Column:
    """A column as people see it; files for programs have the raw values of ``Table.rows`` instead."""

    name: str
    label: str  # heading, with the unit
    show: Callable[[TableRow], str]
    is_text: bool = False  # aligned left
    folds: bool = False  # over several lines
    block: str = "costs"  # columns of a block stay together if the table is wider than a line
    dropped: int | None = None  # its place among the columns that a narrow console leaves out; None: never left out
    direction: Direction | None = None  # which way is better; None: neither


def run_columns(rows: Sequence[TableRow], scores: Sequence[str]) -> list[Column]:
    """The columns of a table of runs."""
    with_state = any(row["state"] != "finished" or row["reused"] or row["other_code"] for row in rows)
    return [
        Column("row", "#", _row_number, block=EVERY_BLOCK),
        *setting_columns(),
        *([Column("state", "state", state_of, is_text=True)] if with_state else []),
        Column("trainable_parameters", "trainable", _trainable),
        Column("trainable_share", "share %", _if_known("trainable_share", lambda part: f"{100 * part:.3g}"), dropped=2),
        Column("train_s", "train s", _if_known("train_s", _seconds), dropped=4),
        Column("tokens_per_s", "tokens/s", _if_known("tokens_per_s", "{:.0f}".format), dropped=1),
        Column(
            "peak_train_bytes", "peak MiB", _if_known("peak_train_bytes", lambda size: f"{size / 2**20:.0f}"), dropped=3
        ),
        Column(
            "validation_loss",
            SCORES["validation_loss"].label,
            _if_known("validation_loss", lambda loss: f"{loss:.{decimals('validation_loss', loss)}f}"),
            block="losses",
        ),
        Column("run", "run", lambda row: row["fingerprint"], is_text=True),
        *score_columns(scores, _value_and_change),
    ]


def setting_columns() -> list[Column]:
    """Method and setting, which begin the lines of every table."""
    return [
        Column("method", "method", lambda row: row["method"], is_text=True, block=EVERY_BLOCK),
        Column("setting", "setting", lambda row: row["setting"], is_text=True, folds=True, block=EVERY_BLOCK),
    ]


def score_columns(names: Sequence[str], show: Callable[[str], Callable[[TableRow], str]]) -> list[Column]:
    """One column per score, metrics and losses in a block each; ``show`` makes the text of a score's cells.

    A narrow console leaves out scores that repeat another one first, then those on the right.
    """
    repeating = [name for name in names if name in SCORES and SCORES[name].repeats]
    leaving = [*repeating, *reversed([name for name in names if name not in repeating])]
    columns = []
    for name in names:
        known = SCORES.get(name)  # None: from a record of other code, whose direction nobody here knows
        columns.append(
            Column(
                name,
                known.heading if known else name,
                show(name),
                block="scores" if known is None or known.is_metric else "losses",
                dropped=leaving.index(name),
                direction=known.direction if known else None,
            )
        )
    return columns


def state_of(row: TableRow) -> str:
    """The state as people see it: what an earlier command did differs from what this one did."""
    earlier = {"finished": "reused", "failed": "failed earlier"} if row["reused"] else {}
    mark = " (other code)" if row["other_code"] else ""
    return f"{earlier.get(row['state'], row['state'])}{mark}"


def _row_number(row: TableRow) -> str:
    return f"{row['row']} = {row['shares_row']}" if row["shares_row"] else str(row["row"])


def _if_known(name: str, form: Callable[[Any], str]) -> Callable[[TableRow], str]:
    return lambda row: NOTHING if row[name] is None else form(row[name])


def _seconds(seconds: float) -> str:
    return f"{seconds:.{1 if seconds < 100 else 0}f}"


def _trainable(row: TableRow) -> str:
    """Trainable parameters; before and after training if the method prunes."""
    count, final = row["trainable_parameters"], row["trainable_parameters_final"]
    if count is None:
        return NOTHING
    return short_count(count) if final in (None, count) else f"{short_count(count)}→{short_count(final)}"


def _value_and_change(name: str) -> Callable[[TableRow], str]:
    def show(row: TableRow) -> str:
        value, change = row[name], row[f"{name}_change"]
        if value is None:
            return NOTHING
        # The same number of decimals for both, or the two would not add up.
        places = decimals(name, max(abs(value), abs(change or 0.0)))
        if change is None:
            return f"{value:.{places}f}"
        signed = f"{change:+.{places}f}"
        return f"{value:.{places}f} ({signed if float(signed) else '±' + signed[1:]})"

    return show
