"""Build a table from records. Reads records only: no torch, no model.

A row is a cell of the grid, in grid order. Cells with equal plans share one run; the later rows say so, because a
shared run is not a replicate.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.record.readings import prune_reason, validation_loss
from harness.record.redact import redactor
from harness.report.cells import NOT_STARTED, TableCell, TableRow
from harness.report.columns import Column, run_columns, state_of
from harness.report.notes import answered_elsewhere, notes_on
from harness.runtime.terminal import counted, printable
from harness.scoring.catalog import SCORES, learn_record


@dataclass(frozen=True)
class Table:
    """Rows of raw values (the CSV's columns), the columns that people see, and the notes below them."""

    rows: list[TableRow]
    columns: list[Column]
    scores: list[str]
    notes: list[str] = field(default_factory=list)


def build_table(
    cells: Sequence[TableCell], records: Mapping[str, Mapping[str, Any]], shared: Sequence[str] = ()
) -> Table:
    """One row per cell, in the order given.

    Only finished runs have figures other than parameter counts: those of half a run are not a result.

    Args:
        records: by fingerprint; a cell without one was not run.
        shared: overrides of all cells, which no row repeats.
    """
    chosen = [records[cell.fingerprint] for cell in cells if cell.fingerprint in records]
    for record in chosen:
        learn_record(record)
    present = {name for record in chosen for name in record["scores"]["after"] | record["scores"]["before"]}
    scores = [name for name in SCORES if name in present] + sorted(present - set(SCORES))
    first: dict[str, int] = {}
    rows, shown = [], _shown_text()
    for number, cell in enumerate(cells, start=1):
        owner = first.setdefault(cell.fingerprint, number)
        shares = owner if owner != number else None
        row = _row(number, shares, cell, records.get(cell.fingerprint), scores)
        rows.append({key: shown(value) if isinstance(value, str) else value for key, value in row.items()})
    common = [f"all rows: {' '.join(shared)}"] if shared else []
    notes = [*common, *answered_elsewhere(cells), *notes_on(rows, records, scores)]
    return Table(rows, run_columns(rows, scores), scores, list(map(_shown_text(), notes)))


def _shown_text() -> Callable[[str], str]:
    """What a table shows of a text: no secret, and no control character; here, before a file escapes it."""
    redact = redactor()
    return lambda text: printable(redact(text))


def _row(
    number: int, shares: int | None, cell: TableCell, record: Mapping[str, Any] | None, scores: Sequence[str]
) -> TableRow:
    if record is None or cell.not_started:
        record = {"status": NOT_STARTED if cell.not_started else "not run", "error": None}
    parameters, error = record.get("parameters", {}), record["error"] or {}
    row: TableRow = {
        "row": number,
        "shares_row": shares,
        "overrides": cell.overrides,
        "method": _method(cell, record),
        "setting": cell.setting,
        "fingerprint": cell.fingerprint,
        "state": record["status"],
        "reused": cell.reused,
        "other_code": cell.other_code if record["status"] == "finished" else None,
        "trainable_parameters": parameters.get("trainable"),
        "trainable_parameters_final": parameters.get("trainable_final"),
        "trainable_share": parameters.get("share"),
        "stored_parameters": parameters.get("stored"),
    }
    finished = record if record["status"] == "finished" else {}
    memory, training = finished.get("memory_bytes", {}), finished.get("training", {})
    row |= {
        "adapter_bytes": (finished.get("adapter") or {}).get("bytes"),
        "train_s": finished.get("times_s", {}).get("train"),
        "tokens_per_s": training.get("tokens_per_s"),
        "peak_train_bytes": memory.get("train_peak"),
        "peak_score_bytes": memory.get("score_peak"),
        "memory_kind": memory.get("kind"),
        "validation_loss": validation_loss(finished) if finished else None,
    }
    before, after = (finished["scores"][when] if finished else {} for when in ("before", "after"))
    for name in scores:
        old, new = before.get(name), after.get(name)
        row |= {name: new, f"{name}_change": None if old is None or new is None else new - old}
    why = prune_reason(record["pruned"]) if record["status"] == "pruned" else error.get("message")
    return row | {"error": why, "hint": error.get("hint")}


def _method(cell: TableCell, record: Mapping[str, Any]) -> str:
    """``library`` is many methods; the record knows which one."""
    kind = record.get("plan", {}).get("settings", {}).get("type") if cell.method == "library" else None
    return f"library:{kind}" if kind else cell.method


def outcome_line(table: Table) -> str:
    """One line for the end of a sweep: ``6 cells, 4 runs: 3 finished, 1 failed``."""
    runs = [row for row in table.rows if not row["shares_row"]]
    states = Counter(state_of(row) for row in runs)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{counted(len(table.rows), 'cell')}, {counted(len(runs), 'run')}: {counts}"
