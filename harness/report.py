"""Records -> one table: on the console, as CSV and as Markdown. Reads records only: no torch, no model.

A row is a cell of the grid, in grid order. Cells whose plans are equal share one run; the later rows say so,
because a shared run is no replicate.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import files
from harness.schema import SHEETS

Row = dict[str, Any]

# Known scores, in the order of their columns. All are percent (0..100) but for those in LOWER_IS_BETTER.
SCORES = (
    *("rouge_l", "names_target", "exact_match", "token_f1", "chrf", "bleu"),
    *("loss", "perplexity", "forgetting_loss"),
)
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "forgetting_loss"})
# What a narrow terminal loses, first to last. Unknown scores go after perplexity, which repeats the loss.
DROPPED_FIRST = (
    *("run", "perplexity", "?", "bleu", "chrf", "token_f1", "tokens_per_s", "trainable_share"),
    *("peak_train_bytes", "exact_match", "names_target", "forgetting_loss", "loss", "train_s", "rouge_l"),
)
WIDTH_WITHOUT_TERMINAL = 140  # columns, where the output is a file or a pipe
SAID_ELSEWHERE = ("method", "trainer.learning_rate", "trainer.threads")  # keys of a plan: other columns, or idle
GAP = 2  # columns between columns
NOTHING = "-"
NOT_STARTED = "not started"
EVERY = "every"  # the block of columns that each line begins with


# --- the grid -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One point of the grid: what the user asked for, and the run that answers it."""

    overrides: str  # as on the command line: "peft=ia3 lora.r=4"
    fingerprint: str
    method: str
    setting: str  # see setting_of
    reused: bool = False  # the record is not of this command
    idle: bool = False  # this command did not come to it; a record that there is, is not of now
    answer: str | None = None  # "finished by process 4711 on node7", while this command ran


_WORD = re.compile(r"""(?:[^\s"'\[({]|"[^"]*"|'[^']*'|\[[^\]]*\]|\([^)]*\)|\{[^}]*\})+|\S""")


def words(overrides: str | Sequence[str]) -> list[str]:
    """Single overrides; white space within quotes and brackets does not part them."""
    return _WORD.findall(overrides) if isinstance(overrides, str) else list(overrides)


def shared_overrides(grid: Sequence[str | Sequence[str]]) -> frozenset[str]:
    """Overrides that every cell has, which tell no cell from another; none where there is one cell."""
    sets = [set(words(cell)) for cell in grid]
    return frozenset(set.intersection(*sets)) if len(sets) > 1 else frozenset()


def setting_of(overrides: str | Sequence[str], method: str, shared: Collection[str] = ()) -> str:
    """What tells this cell from others, short: ``r=4`` for ``peft=lora lora.r=4``.

    Settings of another method's sheet have no effect here and stand in parentheses: ``(lora.r=4)``. Overrides
    in ``shared`` are left out, unless they are of the method's own sheet.
    """
    said = []
    for word in words(overrides):
        key, _, value = word.lstrip("+~").partition("=")
        sheet, _, rest = key.partition(".")
        if key == "peft" or (word in shared and sheet != method):
            continue
        if sheet == method and rest:
            said.append(f"{rest}={value}")
        else:
            said.append(f"({key}={value})" if sheet in SHEETS and rest else f"{key}={value}")
    return " ".join(said)


def cells_of(records: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Cells for records whose commands are not known: settings are told from what differs in their plans."""
    plans = [_flat(record["plan"]) for record in records]
    values: dict[tuple[str, ...], set[str]] = {}
    for plan in plans:
        for key, value in plan.items():
            values.setdefault((*_peers(key, plan), key), set()).add(repr(value))
    cells = []
    for record, plan in zip(records, plans, strict=True):
        differing = [key for key in plan if key not in SAID_ELSEWHERE and len(values[(*_peers(key, plan), key)]) > 1]
        said = (f"{key.removeprefix('settings.')}={plan[key]}" for key in differing if not key.startswith("inputs."))
        cells.append(Cell("", record["fingerprint"], record["method"], " ".join(said), reused=True))
    return cells


def _peers(key: str, plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The plans to compare a setting with: another method or model differs in everything that is its own."""
    group, _, rest = key.partition(".")
    if group in ("settings", "learning_rate"):
        return ("method", plan["method"])
    if group in ("model", "data") and rest != "name":
        return (group, plan[f"{group}.name"])
    return ()


def _flat(plan: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plan.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


# --- the table ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column as people see it; files for programs have the raw values of ``Table.rows`` instead."""

    name: str
    label: str  # with its unit
    show: Callable[[Row], str]
    is_text: bool = False
    folds: bool = False  # over several lines
    block: str = "costs"  # columns that stay together where one line cannot hold all


@dataclass(frozen=True)
class Table:
    """Rows of raw values (the CSV's columns), how people see them, and what must be said beneath."""

    rows: list[Row]
    columns: list[Column]
    scores: list[str]
    notes: list[str] = field(default_factory=list)


def table(cells: Sequence[Cell], records: Mapping[str, Mapping[str, Any]]) -> Table:
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
    return Table(rows, _columns(rows, scores), scores, [*_answers(cells), *_notes(rows, records, scores)])


def validation_loss(record: Mapping[str, Any]) -> float | None:
    """Validation loss (nats per completion token) of the weights that were scored; None if not measured.

    Those are the weights of ``best_step`` where the best were kept, else the last ones.
    """
    points = record["training"].get("validation") or []
    best = record["training"].get("best_step")
    kept = [point["loss"] for point in points if best is None or point["step"] == best]
    return kept[-1] if kept else None


def _row(number: int, shares: int | None, cell: Cell, record: Mapping[str, Any] | None, scores: Sequence[str]) -> Row:
    if record is None or cell.idle:
        record = {"status": NOT_STARTED if cell.idle else "not run", "error": None}
    parameters, error = record.get("parameters", {}), record["error"] or {}
    row: Row = {
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


def _method(cell: Cell, record: Mapping[str, Any]) -> str:
    """``library`` is many methods; the record knows which."""
    kind = record.get("plan", {}).get("settings", {}).get("type") if cell.method == "library" else None
    return f"library:{kind}" if kind else cell.method


def _columns(rows: Sequence[Row], scores: Sequence[str]) -> list[Column]:
    columns = [
        Column("row", "#", _number, block=EVERY),
        Column("method", "method", lambda row: row["method"], is_text=True, block=EVERY),
        Column("setting", "setting", lambda row: row["setting"], is_text=True, folds=True, block=EVERY),
    ]
    if any(row["state"] != "finished" or row["reused"] for row in rows):
        columns.append(Column("state", "state", _state, is_text=True))
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


def score_column(name: str, show: Callable[[Row], str]) -> Column:
    """The column of a score, with the direction that is better."""
    lower = name in LOWER_IS_BETTER
    return Column(name, f"{name} {'↓' if lower else '↑'}", show, block="losses" if lower else "scores")


def _number(row: Row) -> str:
    return f"{row['row']} = {row['shares_row']}" if row["shares_row"] else str(row["row"])


def _state(row: Row) -> str:
    named = {"finished": "reused", "failed": "failed earlier"} if row["reused"] else {}
    return str(named.get(row["state"], row["state"]))


def _shown(name: str, form: Callable[[Any], str]) -> Callable[[Row], str]:
    return lambda row: NOTHING if row[name] is None else form(row[name])


def _trainable(row: Row) -> str:
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


def _score_of(name: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
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


def digits(name: str, size: float) -> int:
    """Decimals of a score of that size."""
    if name not in LOWER_IS_BETTER:
        return 1
    return 3 if size < 100 else 1 if size < 10_000 else 0


# --- what must be said beneath --------------------------------------------------------------------------


def _notes(rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
    notes = []
    runs = [(row, records[row["fingerprint"]]) for row in rows if row["state"] == "finished"]
    notes += _baseline(runs, scores)
    for row in [row for row in rows if row["shares_row"]][:1]:
        one, other = row["row"], row["shares_row"]
        notes.append(f"{one} = {other}: row {one} asks for the plan of row {other}; one run answers both, no replicate")
    if any(word.startswith("(") for row in rows for word in words(row["setting"])):
        notes.append("(...): a setting without effect on this method")
    if any(row["trainable_parameters_final"] not in (None, row["trainable_parameters"]) for row in rows):
        notes.append("trainable a→b: before and after pruning")
    kinds = sorted({row["memory_kind"] for row in rows if row["memory_kind"]})
    if kinds:
        named = {
            "process_rss": "resident memory of the process",
            "cuda_allocated": "memory allocated on the GPU",
        }
        notes.append(f"peak: in training; {', '.join(named.get(kind, kind) for kind in kinds)}")
    for row in rows:
        if row["state"] not in ("finished", "not run", NOT_STARTED) and not row["shares_row"]:
            # A message may hold a screen of text; its first line names the fault.
            message = (row["error"] or "").strip().partition("\n")[0]
            why = " - ".join(text for text in (message, row["hint"]) if text)
            notes.append(f"row {row['row']} {row['state']}{': ' if why else ''}{why}")
    return notes + _differences(runs, scores)


def _answers(cells: Sequence[Cell]) -> list[str]:
    """Whom to thank for results that another process made while the sweep ran."""
    rows: dict[str, list[str]] = {}
    for number, cell in enumerate(cells, start=1):
        if cell.answer:
            rows.setdefault(cell.answer, []).append(str(number))
    return [f"row{'s' if numbers[1:] else ''} {', '.join(numbers)}: {answer}" for answer, numbers in rows.items()]


def _baseline(runs: Sequence[tuple[Row, Mapping[str, Any]]], scores: Sequence[str]) -> list[str]:
    """The scores of the untouched base model, where all rows share them to the digit shown."""
    baselines = set()
    for _, record in runs:
        before = record["scores"]["before"]
        known = [(name, before[name]) for name in scores if before.get(name) is not None]
        baselines.add(", ".join(f"{name} {value:.{digits(name, abs(value))}f}" for name, value in known))
    if len(baselines) > 1:
        return ["changes are from each row's own baseline: the rows differ in it"]
    return [f"baseline (the untouched base model): {baseline}" for baseline in baselines if baseline]


def _differences(runs: Sequence[tuple[Row, Mapping[str, Any]]], scores: Sequence[str]) -> list[str]:
    """In what the finished runs differ beyond their settings, lest a reader compare the unlike."""
    asked: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "code: figures of different versions": lambda record: record["code"]["version"],
        "device: times and memory do not compare": lambda record: (
            record["device"]["type"],
            record["device"]["name"],
        ),
        "training tokens: not the same data or labels": lambda record: record["audit"].get("supervised_sha256"),
        "kind of memory: peaks do not compare": lambda record: record["memory_bytes"].get("kind"),
    }
    for name in scores:
        asked[f"signature of {name}: its figures do not compare"] = _signature_of(name)
    notes = []
    for what, ask in asked.items():
        groups: dict[Any, list[str]] = {}
        for row, record in runs:
            groups.setdefault(ask(record), []).append(str(row["row"]))
        if len(groups) > 1:
            parts = " | ".join(",".join(numbers) for numbers in groups.values())
            notes.append(f"rows {parts} differ in {what}")
    return notes


def _signature_of(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda record: record["scores"]["signatures"].get(name)


# --- output ---------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Raw values under ``Table.rows``' keys, empty where unknown. Units are in the names; times are seconds,
    shares 0..1, losses nats per token, other scores percent; ``_change`` is after less before."""
    stream = io.StringIO()
    names = list(table.rows[0]) if table.rows else ["row"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """Every column as on a wide console, and the notes as a list."""
    lines = [[_escaped(column.label) for column in table.columns]]
    lines.append(["---" if column.is_text else "--:" for column in table.columns])
    lines += [[_escaped(column.show(row)) for column in table.columns] for row in table.rows]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return text + "".join(f"{'' if number else chr(10)}- {_escaped(note)}\n" for number, note in enumerate(table.notes))


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: an error message or a setting is data, not markup or HTML."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_all(folder: str | Path, table: Table, over_seeds: Table | None = None) -> None:
    """Write ``table.csv`` and ``table.md`` into ``folder``, each atomically.

    Args:
        over_seeds: of ``replicates``; the end of the Markdown, and ``over_seeds.csv``, which is removed where None.
    """
    folder, text = Path(folder), to_markdown(table)
    files.atomic_write_text(folder / "table.csv", to_csv(table))
    if over_seeds is not None:
        files.atomic_write_text(folder / "over_seeds.csv", to_csv(over_seeds))
        text += f"\n## Over seeds\n\nMean ± sample standard deviation.\n\n{to_markdown(over_seeds)}"
    else:
        (folder / "over_seeds.csv").unlink(missing_ok=True)
    files.atomic_write_text(folder / "table.md", text)


def outcome(table: Table) -> str:
    """One line for the end of a sweep: ``6 cells, 4 runs: 3 finished, 1 failed``."""
    own = [row for row in table.rows if not row["shares_row"]]
    states = Counter(_state(row) for row in own)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{len(table.rows)} cells, {len(own)} runs: {counts}"
