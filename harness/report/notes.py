"""Notes below a table: what its signs mean, which rows failed, and which rows are not comparable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.record.readings import continuation_note, stopping_note
from harness.report.cells import NOT_STARTED, TableCell, TableRow, split_overrides
from harness.report.measured import classes, standard_errors
from harness.scoring.catalog import decimals

Run = tuple[TableRow, Mapping[str, Any]]  # a row and its record

MEMORY_KINDS = {
    "process_rss": "resident memory of the process",
    "cuda_allocated": "memory allocated on the GPU",
}


def notes_on(rows: Sequence[TableRow], records: Mapping[str, Mapping[str, Any]], scores: Sequence[str]) -> list[str]:
    """All notes on a table of runs; ``records`` by fingerprint."""
    finished = [(row, records[row["fingerprint"]]) for row in rows if row["state"] == "finished"]
    return [
        *_baseline(finished, scores),
        *_cut(finished),
        *standard_errors([(str(row["row"]), record) for row, record in finished]),
        *classes([(str(row["row"]), record) for row, record in finished]),
        *_legend(rows),
        *_failures(rows),
        *_pruned(rows),
        *_stopped_early(finished),
        *_continued(finished),
        *_other_code(rows),
        *_differences(finished, scores),
    ]


def answered_elsewhere(cells: Sequence[TableCell]) -> list[str]:
    """Which rows another process answered while the sweep ran."""
    rows: dict[str, list[str]] = {}
    for number, cell in enumerate(cells, start=1):
        if cell.answered_by:
            rows.setdefault(cell.answered_by, []).append(str(number))
    return [f"row{'s' if numbers[1:] else ''} {', '.join(numbers)}: {text}" for text, numbers in rows.items()]


def _baseline(runs: Sequence[Run], scores: Sequence[str]) -> Iterator[str]:
    """The scores of the untouched base model, if all rows share them to the digit shown."""
    baselines = set()
    for _, record in runs:
        before = record["scores"]["before"]
        known = [(name, before[name]) for name in scores if before.get(name) is not None]
        baselines.add(", ".join(f"{name} {value:.{decimals(name, abs(value))}f}" for name, value in known))
    if len(baselines) > 1:
        yield "changes are relative to each row's own baseline, because the baselines of the rows differ"
    elif any(baselines):
        yield f"baseline (the untouched base model): {baselines.pop()}"


def _cut(runs: Sequence[Run]) -> Iterator[str]:
    """How many answers reached the limit of their length, where any did."""
    counts: dict[str, list[str]] = {}
    for row, record in runs:
        cut = record["scores"].get("cut") or {}
        if cut.get("before") or cut.get("after"):
            text = f"{cut.get('after', 0)} of {cut['of']} (baseline {cut.get('before', 0)}) at {cut['limit']} tokens"
            counts.setdefault(text, []).append(str(row["row"]))
    if counts:
        parts = [f"row{'s' if numbers[1:] else ''} {','.join(numbers)}: {text}" for text, numbers in counts.items()]
        yield f"answers cut by scoring.generation.max_new_tokens: {'; '.join(parts)}"


def _legend(rows: Sequence[TableRow]) -> Iterator[str]:
    """What the signs in this table mean."""
    for row in [row for row in rows if row["shares_row"]][:1]:
        one, other = row["row"], row["shares_row"]
        yield f"{one} = {other}: row {one} has the same plan as row {other}; one run shown twice, not a replicate"
    if any(part.startswith("(") for row in rows for part in split_overrides(row["setting"])):
        yield "(...): a setting ignored by this method"
    if any(row["trainable_parameters_final"] not in (None, row["trainable_parameters"]) for row in rows):
        yield "trainable a→b: before and after pruning"
    kinds = sorted({row["memory_kind"] for row in rows if row["memory_kind"]})
    if kinds:
        yield f"peak: during training; {', '.join(MEMORY_KINDS.get(kind, kind) for kind in kinds)}"


def _pruned(rows: Sequence[TableRow]) -> Iterator[str]:
    if any(row["state"] == "pruned" for row in rows):
        yield (
            "pruned rows lost to others of their method on validation loss (sweep.prune) and are in no comparison; "
            "sweep.prune=none trains them"
        )


def _stopped_early(runs: Sequence[Run]) -> Iterator[str]:
    """Which runs ended by their own validation loss: finished results, but of less training than planned."""
    if note := stopping_note({str(row["row"]): record for row, record in runs}):
        yield note


def _continued(runs: Sequence[Run]) -> Iterator[str]:
    """Which runs began with weights that others had trained."""
    if note := continuation_note({str(row["row"]): record for row, record in runs}):
        yield note


def _other_code(rows: Sequence[TableRow]) -> Iterator[str]:
    """Which results were made by another code version than the present one."""
    by_version: dict[str, list[str]] = {}
    for row in rows:
        if row["other_code"]:
            by_version.setdefault(row["other_code"], []).append(str(row["row"]))
    for version, numbers in by_version.items():
        yield f"row{'s' if numbers[1:] else ''} {', '.join(numbers)}: made by code {version}, not by the present code"


def _failures(rows: Sequence[TableRow]) -> Iterator[str]:
    for row in rows:
        if row["state"] not in ("finished", "not run", NOT_STARTED) and not row["shares_row"]:
            # A message may be a screen long; its first line names the fault.
            message = (row["error"] or "").strip().partition("\n")[0]
            why = " - ".join(text for text in (message, row["hint"]) if text)
            yield f"row {row['row']} {row['state']}{': ' if why else ''}{why}"


def _differences(runs: Sequence[Run], scores: Sequence[str]) -> Iterator[str]:
    """How the finished runs differ beyond their settings, so that nobody compares what is not comparable."""
    readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "code: results of different versions": lambda record: record["code"]["version"],
        "device: times and memory are not comparable": lambda record: (
            record["device"]["type"],
            record["device"]["name"],
        ),
        "training tokens: different data or labels": lambda record: record["audit"].get("supervised_sha256"),
        "kind of memory: peaks are not comparable": lambda record: record["memory_bytes"].get("kind"),
    }
    for name in scores:
        readers[f"signature of {name}: its values are not comparable"] = _signature_of(name)
    for what, read in readers.items():
        groups: dict[Any, list[str]] = {}
        for row, record in runs:
            groups.setdefault(read(record), []).append(str(row["row"]))
        if len(groups) > 1:
            yield f"rows {' | '.join(','.join(numbers) for numbers in groups.values())} differ in {what}"


def _signature_of(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda record: record["scores"]["signatures"].get(name)
