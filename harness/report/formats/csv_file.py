"""``runs.csv``: one line for each run, with raw values."""

import csv
import io
import re
from typing import Any

from harness.report.fields import COSTS
from harness.report.model import Report, Run

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

# A spreadsheet takes a cell that begins like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def to_csv(report: Report) -> str:
    """Raw values under fixed names, empty if unknown.

    Times are seconds, sizes bytes, scores in the unit of the catalog; ``_before`` is the untouched model, ``_change``
    after minus before. A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    stream = io.StringIO()
    scores = list(dict.fromkeys(name for group in report.groups for name in group.scores if name != "validation_loss"))
    rows = [_row(run, group.title, scores) for group in report.groups for run in group.runs]
    rows += [_row(run, "", scores) for run in report.failures if not run.configuration]
    places = {fingerprint: place for place, fingerprint in enumerate(report.order)}
    rows.sort(key=lambda row: places.get(row["run"], len(places)))
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: as_text(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def as_text(value: Any) -> Any:
    """The value, with an apostrophe before a text that a spreadsheet would compute."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _row(run: Run, group: str, scores: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "run": run.fingerprint,
        "group": group,
        "method": run.method,
        "setting": run.setting,
        "learning_rate": run.details.get("learning_rate"),
        "seed": run.seed,
        "state": run.state,
        "configuration": run.configuration,
        "cells": " | ".join(run.cells),
        **{name: run.costs[name] for name in COSTS},
        "validation_loss": run.validation_loss,
    }
    for name in scores:
        before, after = run.before.get(name), run.after.get(name)
        change = None if before is None or after is None else after - before
        row |= {name: after, f"{name}_before": before, f"{name}_change": change}
    return row | {
        "code": run.code,
        "device": run.device,
        "dtype": run.dtype,
        "started": run.started,
        "finished": run.finished,
        "folder": run.folder,
        "error": run.error,
        "hint": run.hint,
    }
