"""How much each training row counts: the weight in its own column, times that of its output."""

from collections.abc import Sequence
from dataclasses import replace

from harness.config.schema import Data
from harness.data.json_rows import RawRow
from harness.data.rows import Row, has_column
from harness.data.values import shown
from harness.errors import DataFault, raise_together


def weighted(rows: Sequence[Row], data: Data) -> list[Row]:
    """The training rows with the weights of ``data.class_weights``.

    Raises:
        DataFault: an output that it names is that of no training row.
    """
    weights = {str(output): float(weight) for output, weight in (data.class_weights or {}).items()}
    if not weights:
        return list(rows)
    outputs = {row.output for row in rows}
    known = ", ".join(map(shown, sorted(outputs)[:8])) + (", ..." if len(outputs) > 8 else "")
    raise_together(
        [
            f"data.class_weights names {shown(name)}, which no training row has as its output; its rows have {known}; "
            "correct the name, or leave it out"
            for name in weights
            if name not in outputs
        ],
        DataFault,
    )
    return [replace(row, weight=row.weight * weights.get(row.output, 1.0)) for row in rows]


def refuse_missing_weights(raw_rows: Sequence[RawRow], source: str, data: Data) -> None:
    """Raise DataFault if no training row of the source has the column of weights."""
    column = data.columns.weight
    values = [value for _, value in raw_rows if isinstance(value, dict)]
    if column is not None and values and not any(has_column(value, column) for value in values):
        has = ", ".join(shown(name) for name in list(values[0])[:20]) or "none"
        raise DataFault(
            f"data.columns.weight={column}: {source} has no such column; it has {has}; name one of them, or null for "
            "none"
        )
