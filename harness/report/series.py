"""Series of a report: configurations along the settings that were varied, and losses over training."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.model import Axis, Configuration, Curve, Line
from harness.scoring.catalog import SCORES

POINTS = 120  # of a curve; more cannot be told apart on a page
WIDE = 8.0  # the largest value over the smallest, from which an axis is logarithmic

RATE = "learning_rate"


def axes(configurations: Sequence[Configuration]) -> tuple[Axis, ...]:
    """The numeric settings that were varied, each with its lines; the learning rate last."""
    names = dict.fromkeys(name for each in configurations for name, value in each.values.items() if _is_number(value))
    found = [axis for name in names if name != RATE for axis in [_axis(name, configurations)] if axis.lines]
    if RATE in names:
        found += [axis for axis in [_axis(RATE, configurations)] if axis.lines]
    return tuple(found)


def _axis(name: str, configurations: Sequence[Configuration]) -> Axis:
    lines: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for each in configurations:
        value = each.values.get(name)
        if value is not None and _is_number(value):
            others = " ".join(
                f"{key}={other}" for key, other in each.values.items() if key not in (name, _follower(name, each))
            )
            lines[each.method, " ".join([others, *each.marks]).strip()].append((float(value), each.key))
    kept = [
        Line(method, label, tuple(sorted(points)))
        for (method, label), points in lines.items()
        if len({value for value, _ in points}) > 1
    ]
    values = [value for line in kept for value, _ in line.points]
    logarithmic = bool(values) and min(values) > 0 and max(values) / min(values) >= WIDE
    return Axis(name, logarithmic, tuple(kept))


def _follower(name: str, configuration: Configuration) -> str:
    """A learning rate by the rule follows other settings; it does not part one line from another."""
    return RATE if name != RATE and not configuration.rate_given else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def curve(points: Sequence[Mapping[str, Any]] | None) -> Curve | None:
    """A loss over steps, as means of at most ``POINTS`` equal spans; None without points."""
    if not points:
        return None
    size = math.ceil(len(points) / POINTS)
    steps, losses = [], []
    for start in range(0, len(points), size):
        span = points[start : start + size]
        known = [point["loss"] for point in span if point.get("loss") is not None]
        steps.append(float(span[-1]["step"]))
        losses.append(sum(known) / len(known) if known else None)
    return Curve(tuple(steps), tuple(losses))


def front(configurations: Sequence[Configuration], score: str, cost: str) -> tuple[str, ...]:
    """Keys of the configurations that no other one beats at a lower or equal cost, from the cheapest on."""
    direction = SCORES[score].direction if score in SCORES else None
    sign = -1.0 if direction == "maximize" else 1.0
    known = [
        (each.costs[cost], sign * each.scores[score].mean, each.key)
        for each in configurations
        if direction is not None and each.costs.get(cost) is not None and score in each.scores
    ]
    best, keys = math.inf, []
    for _, value, key in sorted(known):
        if value < best:
            best = value
            keys.append(key)
    return tuple(keys)


def fronts(
    configurations: Sequence[Configuration], scores: Sequence[str], costs: Sequence[str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The Pareto front of each score against each cost that is better when it is lower."""
    return {
        score: {cost: front(configurations, score, cost) for cost in costs if cost != "tokens_per_s"}
        for score in scores
    }
