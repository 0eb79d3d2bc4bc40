"""How long runs will take, judged by finished runs with the same model, data, scoring and work per step."""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.plan.spec import Plan, digest, effective_settings, optimizer_steps

# Settings of the trainer that change neither how long an optimizer step takes nor what happens between steps.
SETTINGS_WITHOUT_EFFECT = (
    "epochs",
    "max_steps",
    "weight_decay",
    "schedule",
    "warmup_share",
    "max_grad_norm",
    "learning_rate",
)

ONCE = ("load", "tokenize", "score_before")  # by the record's names; the runs of one process share them

RECENT = 20  # latest records that a median is taken over: machines and code change


@dataclass(frozen=True)
class _Measured:
    method: str
    host: str
    train_s: float
    rest_s: float  # scoring, validation, saving
    once_s: float
    steps: int
    rows: int


class Forecast:
    """Seconds that plans may take; unknown if no comparable run has finished."""

    def __init__(self, records: Iterable[Mapping[str, Any]], host: str) -> None:
        self._host = host
        # By kind, host and method, None meaning any: a forecast for thousands of plans needs only look-ups.
        self._known: dict[tuple[str, str | None, str | None], deque[_Measured]] = {}
        self._kinds: dict[int, tuple[Plan, str, str]] = {}  # keeps the plan, so that its id is not reused
        for record in records:
            self.learn(record)

    def learn(self, record: Mapping[str, Any]) -> None:
        """Add a record; one that is not finished, or that another version wrote in another shape, is ignored."""
        try:
            if record["status"] != "finished":
                return
            kind, measured = _kind(record["plan"]), _measured(record)
        except (KeyError, TypeError, ValueError):
            return
        for host in (measured.host, None):
            for method in (measured.method, None):
                self._known.setdefault((kind, host, method), deque(maxlen=RECENT)).append(measured)

    def seconds(self, plans: Sequence[Plan]) -> tuple[float, int]:
        """Duration of these runs in sequence in one process, and how many are unknown and left out of it."""
        total, unknown, once = 0.0, 0, dict[str, float]()
        for plan in plans:
            kind, base = self._of(plan)
            comparable = self._comparable(kind, plan.method)
            if not comparable:
                unknown += 1
                continue
            total += statistics.median(each.rest_s + each.train_s * _ratio(plan, each) for each in comparable)
            once[base] = max(once.get(base, 0.0), max(each.once_s for each in comparable))
        return total + sum(once.values()), unknown

    def _comparable(self, kind: str, method: str) -> Sequence[_Measured]:
        """The latest measurements of the closest runs: this machine before others, then the same method."""
        nearest = ((kind, host, each) for host in (self._host, None) for each in (method, None))
        return next((self._known[key] for key in nearest if key in self._known), ())

    def _of(self, plan: Plan) -> tuple[str, str]:
        """Hashes of the plan's kind and of its base model."""
        if id(plan) not in self._kinds:
            values = plan.as_dict()
            self._kinds[id(plan)] = plan, _kind(values), digest(effective_settings(values)["model"])
        return self._kinds[id(plan)][1:]


def _kind(plan: dict[str, Any]) -> str:
    """Hash of what determines the time, apart from the method and the number of steps."""
    used = effective_settings(plan)
    trainer = {key: value for key, value in used["trainer"].items() if key not in SETTINGS_WITHOUT_EFFECT}
    return digest([used["model"], used["data"], used["scoring"], used["inputs"], trainer])


def _measured(record: Mapping[str, Any]) -> _Measured:
    times = {name: float(seconds) for name, seconds in record["times_s"].items()}
    once = sum(times.get(name, 0.0) for name in ONCE)
    whole = datetime.fromisoformat(record["finished"]) - datetime.fromisoformat(record["started"])
    # The clock may have been set meanwhile; a run takes at least as long as its measured parts.
    waited = float(record.get("packed", {}).get("waited_s", 0.0))  # for other runs of a pack
    rest = max(whole.total_seconds() - once - times["train"] - waited, times.get("score_after", 0.0))
    return _Measured(
        method=record["method"],
        host=record["owner"]["host"],
        train_s=times["train"],
        rest_s=rest,
        once_s=once,
        steps=max(int(record["training"]["optimizer_steps"]), 1),
        rows=int(record["rows"]["train"]),
    )


def _ratio(plan: Plan, measured: _Measured) -> float:
    """Optimizer steps of the plan, divided by those that were measured."""
    return optimizer_steps(plan.trainer, measured.rows) / measured.steps


def in_words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``: as precise as a forecast can be."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
