"""A run as a report shows it, finished or not."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.plan.spec import plain
from harness.record.readings import prune_reason, validation_loss
from harness.report import alike
from harness.report.choose import FoundRun
from harness.report.fields import COSTS, Record, costs, flat, method_name
from harness.report.model import Run
from harness.report.series import curve
from harness.report.texts import Clean, cleaner, short_path

LONGEST = 300  # characters of a value among the details of a run


def run_row(found: FoundRun, configuration: str, setting: str, cells: Sequence[str], clean: Clean) -> Run:
    """What a report shows of this run.

    Args:
        configuration: the key of its configuration; ``setting``: what tells that from others, in words.
        cells: of the sweep that the run answers.
    """
    record = found.record
    plan, error = record["plan"], record.get("error") or {}
    training = record.get("training", {})
    finished = record["status"] == "finished"
    predictions = record.get("predictions") if finished else None
    file = found.folder / predictions if predictions else None
    return Run(
        fingerprint=found.fingerprint,
        configuration=configuration,
        method=method_name(record),
        setting=setting,
        seed=int(plan.get("seed", 0)),
        state=record["status"],
        folder=short_path(found.folder),
        cells=tuple(map(clean, cells)),
        before=numbers(record["scores"].get("before", {})) if finished else {},
        after=numbers(record["scores"].get("after", {})) if finished else {},
        costs=costs(record) if finished else {**dict.fromkeys(COSTS), **{COSTS[0]: costs(record)[COSTS[0]]}},
        validation_loss=validation_loss(record) if finished else None,
        started=str(record.get("started", "")),
        finished=record.get("finished"),
        code=str(record["code"]["version"]),
        device=" ".join(str(part) for part in (record.get("device", {}).get(key) for key in ("type", "name")) if part),
        dtype=alike.dtype(record),
        error=clean(_why(record).strip().partition("\n")[0]),
        hint=clean(error.get("hint") or ""),
        notes=tuple(clean(note) for note in record.get("notes", ())),
        details={name: clean(value) if isinstance(value, str) else value for name, value in _details(record).items()},
        training=curve(training.get("curve")),
        validation=curve(training.get("validation")),
        predictions=file if file is not None and file.exists() else None,
    )


def missing_run(fingerprint: str, method: str, cells: Sequence[str], state: str = "not run") -> Run:
    """A cell of a sweep that has no record."""
    return Run(
        fingerprint=fingerprint,
        configuration="",
        method=method,
        setting="",
        seed=0,
        state=state,
        folder="",
        cells=tuple(map(cleaner(), cells)),
        before={},
        after={},
        costs=dict.fromkeys(COSTS),
        validation_loss=None,
        started="",
        finished=None,
        code="",
        device="",
        dtype="",
    )


def _why(record: Record) -> str:
    """Why a run has no result."""
    if record["status"] == "pruned":
        return prune_reason(record["pruned"])
    return str((record.get("error") or {}).get("message") or "")


def _details(record: Record) -> dict[str, Any]:
    """Everything that two runs may differ in, by name; texts are cut."""
    parts = {key: record.get(key, {}) for key in ("audit", "rows", "versions", "device", "inferred", "seeds")}
    parts |= {"plan": record["plan"], "code": record["code"], "parameters": record.get("parameters", {})}
    parts |= {"times_s": record.get("times_s", {}), "memory_bytes": record.get("memory_bytes", {})}
    training = record.get("training", {})
    parts["training"] = {key: training[key] for key in training if key not in ("curve", "validation")}
    whole = ("details", "errors")  # tables of their own, not settings in which runs differ
    scores = {key: value for key, value in record["scores"].items() if key not in whole}
    parts["scores"] = {key: value for key, value in scores.items() if isinstance(value, Mapping)}
    details = {}
    for name, value in flat(parts):
        text = (
            value
            if isinstance(value, str | int | float | bool) or value is None
            else json.dumps(plain(value), ensure_ascii=False)
        )
        if isinstance(text, str) and len(text) > LONGEST:
            text = f"{text[:LONGEST]} ... ({len(text)} characters)"
        details[name.removeprefix("plan.")] = text
    return details


def numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores that a run has."""
    return {name: float(value) for name, value in scores.items() if value is not None}
