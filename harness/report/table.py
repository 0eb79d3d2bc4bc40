"""Records -> one table: on the console, as CSV and as Markdown. Reads records only: no torch, no model.

A row is a cell of the grid, in grid order. Cells whose plans are equal share one run; the later rows say so,
because a shared run is no replicate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.report.cells import NOT_STARTED, NOTHING, TableCell, TableRow
from harness.report.notes import notes_on, who_answered
from harness.scoring.catalog import LOWER_IS_BETTER, SCORES, digits

# What a narrow terminal loses, first to last. Unknown scores go after perplexity, which repeats the loss.
DROPPED_FIRST = (
    *("run", "perplexity", "?", "bleu", "chrf", "token_f1", "tokens_per_s", "trainable_share"),
    *("peak_train_bytes", "exact_match", "names_target", "forgetting_loss", "loss", "train_s", "rouge_l"),
)


WIDTH_WITHOUT_TERMINAL = 140  # columns, where the output is a file or a pipe


GAP = 2  # columns between columns


EVERY = "every"  # the block of columns that each line begins with


# --- the table ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column as people see it; files for programs have the raw values of ``Table.rows`` instead."""

    name: str
    label: str  # with its unit
    show: Callable[[TableRow], str]
    is_text: bool = False
    folds: bool = False  # over several lines
    block: str = "costs"  # columns that stay together where one line cannot hold all


@dataclass(frozen=True)
class Table:
    """Rows of raw values (the CSV's columns), how people see them, and what must be said beneath."""

    rows: list[TableRow]
    columns: list[Column]
    scores: list[str]
    notes: list[str] = field(default_factory=list)


def table(cells: Sequence[TableCell], records: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a cell, in the order given; ``records`` by fingerprint, and a cell without one was not run.

    Figures other than parameter counts are given for finished runs only: those of half a run are no result.
    """
    chosen = [records[cell.fingerprint] for cell in cells if cell.fingerprint in records]
    present = {name for record in chosen for name in record["scores"]["after"] | record["scores"]["before"]}
    scores = [name for name in SCORES if name in present] + sorted(present - set(SCORES))
    first: dict[str, int] = {}
    rows = []
    for number, cell in enumerate(cells, start=1):
        owner = first.setdefault(cell.fingerprint, number)
        shares = owner if owner != number else None
        rows.append(_row(number, shares, cell, records.get(cell.fingerprint), scores))
    return Table(rows, _columns(rows, scores), scores, [*who_answered(cells), *notes_on(rows, records, scores)])


def validation_loss(record: Mapping[str, Any]) -> float | None:
    """Validation loss (nats per completion token) of the weights that were scored; None if not measured.

    Those are the weights of ``best_step`` where the best were kept, else the last ones.
    """
    points = record["training"].get("validation") or []
    best = record["training"].get("best_step")
    kept = [point["loss"] for point in points if best is None or point["step"] == best]
    return kept[-1] if kept else None


def _row(
    number: int, shares: int | None, cell: TableCell, record: Mapping[str, Any] | None, scores: Sequence[str]
) -> TableRow:
    if record is None or cell.idle:
        record = {"status": NOT_STARTED if cell.idle else "not run", "error": None}
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
        "trainable_parameters": parameters.get("trainable"),
        "trainable_parameters_final": parameters.get("trainable_final"),
        "trainable_share": parameters.get("share"),
        "stored_parameters": parameters.get("stored"),
    }
    done = record if record["status"] == "finished" else {}
    memory, training = done.get("memory_bytes", {}), done.get("training", {})
    before, after = (done["scores"][when] if done else {} for when in ("before", "after"))
    row |= {
        "adapter_bytes": (done.get("adapter") or {}).get("bytes"),
        "train_s": done.get("times_s", {}).get("train"),
        "tokens_per_s": training.get("tokens_per_s"),
        "peak_train_bytes": memory.get("train_peak"),
        "peak_score_bytes": memory.get("score_peak"),
        "memory_kind": memory.get("kind"),
        "validation_loss": validation_loss(done) if done else None,
    }
    for name in scores:
        old, new = before.get(name), after.get(name)
        row |= {name: new, f"{name}_change": None if old is None or new is None else new - old}
    return row | {"error": error.get("message"), "hint": error.get("hint")}


def _method(cell: TableCell, record: Mapping[str, Any]) -> str:
    """``library`` is many methods; the record knows which."""
    kind = record.get("plan", {}).get("settings", {}).get("type") if cell.method == "library" else None
    return f"library:{kind}" if kind else cell.method


def _columns(rows: Sequence[TableRow], scores: Sequence[str]) -> list[Column]:
    columns = [
        Column("row", "#", _number, block=EVERY),
        Column("method", "method", lambda row: row["method"], is_text=True, block=EVERY),
        Column("setting", "setting", lambda row: row["setting"], is_text=True, folds=True, block=EVERY),
    ]
    if any(row["state"] != "finished" or row["reused"] for row in rows):
        columns.append(Column("state", "state", state_of, is_text=True))
    columns += [
        Column("trainable_parameters", "trainable", _trainable),
        Column("trainable_share", "share %", _shown("trainable_share", lambda share: f"{100 * share:.3g}")),
        Column(
            "train_s",
            "train s",
            _shown("train_s", lambda seconds: f"{seconds:.{1 if seconds < 100 else 0}f}"),
        ),
        Column("tokens_per_s", "tokens/s", _shown("tokens_per_s", lambda rate: f"{rate:.0f}")),
        Column("peak_train_bytes", "peak MiB", _shown("peak_train_bytes", lambda size: f"{size / 2**20:.0f}")),
        Column("validation_loss", "val. loss", _shown("validation_loss", "{:.3f}".format)),
    ]
    columns.append(Column("run", "run", lambda row: row["fingerprint"], is_text=True))
    return columns + [score_column(name, _score_of(name)) for name in scores]


def score_column(name: str, show: Callable[[TableRow], str]) -> Column:
    """The column of a score, with the direction that is better."""
    lower = name in LOWER_IS_BETTER
    return Column(name, f"{name} {'↓' if lower else '↑'}", show, block="losses" if lower else "scores")


def _number(row: TableRow) -> str:
    return f"{row['row']} = {row['shares_row']}" if row["shares_row"] else str(row["row"])


def state_of(row: TableRow) -> str:
    named = {"finished": "reused", "failed": "failed earlier"} if row["reused"] else {}
    return str(named.get(row["state"], row["state"]))


def _shown(name: str, form: Callable[[Any], str]) -> Callable[[TableRow], str]:
    return lambda row: NOTHING if row[name] is None else form(row[name])


def _trainable(row: TableRow) -> str:
    """Trainable parameters, before and after training where the method prunes."""
    count, final = row["trainable_parameters"], row["trainable_parameters_final"]
    if count is None:
        return NOTHING
    return humanised(count) if final in (None, count) else f"{humanised(count)}→{humanised(final)}"


def humanised(count: int) -> str:
    """``576``, ``9.2k``, ``1.2M``, ``3.1B``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        # 999 950 would round to "1000.0k"
        if count >= size * 0.99995 and count >= 1000:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _score_of(name: str) -> Callable[[TableRow], str]:
    def show(row: TableRow) -> str:
        value, change = row[name], row[f"{name}_change"]
        if value is None:
            return NOTHING
        # One number of decimals for both, or the two would not add up.
        places = digits(name, max(abs(value), abs(change or 0.0)))
        if change is None:
            return f"{value:.{places}f}"
        signed = f"{change:+.{places}f}"
        return f"{value:.{places}f} ({signed if float(signed) else '±' + signed[1:]})"

    return show
