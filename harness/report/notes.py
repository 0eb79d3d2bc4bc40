"""Notes below a table: what differs between its rows, and what a reader must know."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.report.cells import NOT_STARTED, TableCell, TableRow, words
from harness.scoring.catalog import digits

# --- what must be said beneath --------------------------------------------------------------------------


def notes_on(rows: Sequence[TableRow], records: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
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


def who_answered(cells: Sequence[TableCell]) -> list[str]:
    """Whom to thank for results that another process made while the sweep ran."""
    rows: dict[str, list[str]] = {}
    for number, cell in enumerate(cells, start=1):
        if cell.answer:
            rows.setdefault(cell.answer, []).append(str(number))
    return [f"row{'s' if numbers[1:] else ''} {', '.join(numbers)}: {answer}" for answer, numbers in rows.items()]


def _baseline(runs: Sequence[tuple[TableRow, Mapping[str, Any]]], scores: Sequence[str]) -> list[str]:
    """The scores of the untouched base model, where all rows share them to the digit shown."""
    baselines = set()
    for _, record in runs:
        before = record["scores"]["before"]
        known = [(name, before[name]) for name in scores if before.get(name) is not None]
        baselines.add(", ".join(f"{name} {value:.{digits(name, abs(value))}f}" for name, value in known))
    if len(baselines) > 1:
        return ["changes are from each row's own baseline: the rows differ in it"]
    return [f"baseline (the untouched base model): {baseline}" for baseline in baselines if baseline]


def _differences(runs: Sequence[tuple[TableRow, Mapping[str, Any]]], scores: Sequence[str]) -> list[str]:
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
