"""How long runs will take, judged by finished ones of the same model, data, scoring and work per step."""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.plan.spec import Plan, digest, effective_settings

# Settings of the trainer that leave an optimizer step, and what stands between steps, as long as it is.
SETTINGS_WITHOUT_EFFECT = (
    "epochs",
    "max_steps",
    "weight_decay",
    "schedule",
    "warmup_share",
    "max_grad_norm",
    "learning_rate",
)


ONCE = ("load", "tokenise", "score_before")  # shared by the runs of one process, so paid by the first of them


RECENT = 20  # records that a figure is the median of: machines and code change


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
    """Seconds that plans may take; unknown where no like plan has been finished."""

    def __init__(self, records: Iterable[Mapping[str, Any]], host: str) -> None:
        self._host = host
        # By kind, host and method, null standing for any; so that thousands of plans are forecast at a glance.
        self._known: dict[tuple[str, str | None, str | None], deque[_Measured]] = {}
        self._kinds: dict[int, tuple[Plan, str, str]] = {}  # the plan is kept, lest its id be used again
        for kept in records:
            self.learn(kept)

    def learn(self, kept: Mapping[str, Any]) -> None:
        """Take in a record; one that is not finished, or of another version's shape, says nothing."""
        try:
            if kept["status"] != "finished":
                return
            kind, measured = _kind(kept["plan"]), _measured(kept)
        except (KeyError, TypeError, ValueError):
            return
        for host in (measured.host, None):
            for method in (measured.method, None):
                self._known.setdefault((kind, host, method), deque(maxlen=RECENT)).append(measured)

    def seconds(self, plans: Sequence[Plan]) -> tuple[float, int]:
        """For runs one after the other in one process, and how many of them the figure leaves out as unknown."""
        total, unknown, begun = 0.0, 0, dict[str, float]()
        for plan in plans:
            kind, base = self._of(plan)
            like = self._like(kind, plan.method)
            if not like:
                unknown += 1
                continue
            total += statistics.median(each.rest_s + each.train_s * _ratio(plan, each) for each in like)
            begun[base] = max(begun.get(base, 0.0), max(each.once_s for each in like))
        return total + sum(begun.values()), unknown

    def _like(self, kind: str, method: str) -> Sequence[_Measured]:
        """The latest measurements that come nearest: this machine's before others', the same method's first."""
        nearest = ((kind, host, each) for host in (self._host, None) for each in (method, None))
        return next((self._known[key] for key in nearest if key in self._known), ())

    def _of(self, plan: Plan) -> tuple[str, str]:
        """Hashes of the plan's kind and of its base model."""
        if id(plan) not in self._kinds:
            values = plan.as_dict()
            self._kinds[id(plan)] = plan, _kind(values), digest(effective_settings(values)["model"])
        return self._kinds[id(plan)][1:]


def _kind(plan: dict[str, Any]) -> str:
    """Hash of what decides the time besides the method and the number of steps."""
    used = effective_settings(plan)
    trainer = {key: value for key, value in used["trainer"].items() if key not in SETTINGS_WITHOUT_EFFECT}
    return digest([used["model"], used["data"], used["scoring"], used["inputs"], trainer])


def _measured(kept: Mapping[str, Any]) -> _Measured:
    times = {name: float(seconds) for name, seconds in kept["times_s"].items()}
    once = sum(times.get(name, 0.0) for name in ONCE)
    whole = datetime.fromisoformat(kept["finished"]) - datetime.fromisoformat(kept["started"])
    # The clock may have been set in between; what was measured apart is the least that the run took.
    rest = max(whole.total_seconds() - once - times["train"], times.get("score_after", 0.0))
    return _Measured(
        method=kept["method"],
        host=kept["owner"]["host"],
        train_s=times["train"],
        rest_s=rest,
        once_s=once,
        steps=max(int(kept["training"]["optimizer_steps"]), 1),
        rows=int(kept["rows"]["train"]),
    )


def _ratio(plan: Plan, measured: _Measured) -> float:
    """Optimizer steps of the plan by those that were measured."""
    from harness.plan.spec import optimizer_steps

    return optimizer_steps(plan.trainer, measured.rows) / measured.steps


def in_words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``: as exact as a forecast may claim to be."""
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
