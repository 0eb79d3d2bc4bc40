"""What differs between two runs: settings, code, data, costs and scores. Reads records only."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.record.readings import validation_loss
from harness.report.cells import NOTHING
from harness.report.fields import flat, plan_fields
from harness.runtime.terminal import first_of
from harness.scoring.catalog import SCORES, learn_record

Record = Mapping[str, Any]

# Parts of the record by the heading that they stand under.
SECTIONS = {
    "code and machine": ("code", "versions", "device"),
    "data": ("audit", "rows"),
    "resolved": ("inferred",),
    "size and cost": ("parameters", "adapter", "memory_bytes", "times_s"),
}

# Of these only the digests of files differ, which say nothing that the sizes do not.
LEFT_OUT = ("adapter.sha256", "adapter.files", "adapter.path", "plan.inputs")

SHOWN_ENTRIES = 2  # of a list


@dataclass(frozen=True)
class Difference:
    """A field and its two values as text."""

    section: str
    name: str
    one: str
    other: str
    change: str = ""  # the other minus the one, of numbers


def differences(one: Record, other: Record) -> list[Difference]:
    """Every field whose values differ, section by section."""
    for record in (one, other):
        learn_record(record)
    found = []
    for section, left, right in _sections(one, other):
        for name in dict.fromkeys((*left, *right)):
            here, there = left.get(name), right.get(name)
            if here != there and not name.startswith(LEFT_OUT):
                found.append(Difference(section, name, _text(here, there), _text(there, here), _change(here, there)))
    return found


def curve_points(one: Record, other: Record) -> list[tuple[int, float | None, float | None]]:
    """Validation losses by optimizer step; None where a run has no point."""
    left, right = ({int(point["step"]): point["loss"] for point in _validation(each)} for each in (one, other))
    return [(step, left.get(step), right.get(step)) for step in sorted(left.keys() | right.keys())]


def _sections(one: Record, other: Record) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    yield "settings", _settings(one), _settings(other)
    for section, parts in SECTIONS.items():
        left, right = (dict(flat({part: each.get(part) or {} for part in parts})) for each in (one, other))
        yield section, left, right
    yield "training", _training(one), _training(other)
    yield "scores", _scores(one), _scores(other)
    yield "run", _about(one), _about(other)


def _settings(record: Record) -> dict[str, Any]:
    """The plan by the names of the command line."""
    plan = record["plan"]
    rest = {key: value for key, value in plan.items() if key not in ("settings", "method", "learning_rate")}
    own = {name: value for name, value in plan_fields(plan).items() if name.startswith(f"{plan['method']}.")}
    about = {"peft": plan["method"], "trainer.learning_rate": plan.get("learning_rate")}
    return about | own | dict(flat(rest))


def _training(record: Record) -> dict[str, Any]:
    training = {key: value for key, value in record["training"].items() if not isinstance(value, list)}
    return {**training, "validation_loss": validation_loss(record)}


def _scores(record: Record) -> dict[str, Any]:
    scores = record["scores"]
    named = {f"{when}.{name}": value for when in ("before", "after") for name, value in scores[when].items()}
    return named | {f"signature of {name}": value for name, value in (scores.get("signatures") or {}).items()}


def _about(record: Record) -> dict[str, Any]:
    return {key: record.get(key) for key in ("status", "attempt", "note", "tags", "sweep")}


def _validation(record: Record) -> list[dict[str, Any]]:
    return list(record["training"].get("validation") or [])


def _text(value: Any, other: Any = None) -> str:
    """As people read it: four significant digits, whole numbers whole, and of long lists what the other has not."""
    if isinstance(value, list):
        return _entries(value, other if isinstance(other, list) else [])
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


def _entries(values: list[Any], other: list[Any]) -> str:
    if len(values) <= SHOWN_ENTRIES:
        return " ".join(map(_text, values)) or "none"
    own = [value for value in values if value not in other]
    names = first_of([_text(value) for value in own], SHOWN_ENTRIES, " ")
    return f"{len(values)} entries" + (f", only here: {names}" if own else "")


def _change(here: Any, there: Any) -> str:
    numbers = [value for value in (here, there) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return ""
    change = numbers[1] - numbers[0]
    return f"{change:+,}" if isinstance(change, int) else f"{change:+.4g}"


def direction_of(name: str) -> str:
    """``↑`` or ``↓`` behind a score, for the side that is better; empty for everything else."""
    score = SCORES.get(name.removeprefix("after.").removeprefix("before."))
    return "" if score is None else {"maximize": " ↑", "minimize": " ↓"}[score.direction]
