"""What a tracker shows of a record: its settings, its final figures, and its curves."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from harness.record.readings import validation_loss
from harness.trackers.start import STEP

GROUPS = ("parameters", "times_s", "memory_bytes", "audit", "rows")


def config_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The plan, and what else runs are sorted and filtered by."""
    known = ("versions", "code", "attempt", "seeds", "note", "tags", "sweep")
    plan, method = record["plan"], record["method"]
    kind = plan.get("settings", {}).get("type") if method == "library" else None  # library is many methods
    about = {key: record[key] for key in known if key in record}
    return {**plan, "method": f"{method}:{kind}" if kind else method} | about


def summary_of(record: Mapping[str, Any]) -> dict[str, float | str]:
    """The final figures by name: scores, costs, memory, speed, counts of tokens, and the kept validation loss."""
    scores, training = record["scores"], record["training"]
    groups = {"after": scores["after"], "before": scores["before"], "cut": scores.get("cut") or {}}
    groups["gain"] = {name: value - scores["before"][name] for name, value in scores["after"].items()
                      if value is not None and scores["before"].get(name) is not None}  # fmt: skip
    groups |= {name: record[name] for name in GROUPS}
    groups["training"] = {key: value for key, value in training.items() if not isinstance(value, list | dict)}
    groups["adapter"] = {"bytes": (record.get("adapter") or {}).get("bytes")}
    groups["inferred"] = {key: record["inferred"].get(key) for key in ("device", "dtype", "learning_rate")}
    groups["device"] = {"name": record["device"].get("name")}
    groups["validation"] = {"loss": validation_loss(record)}
    named = {f"{group}/{name}": value for group, each in groups.items() for name, value in each.items()}
    return {name: value for name, value in named.items() if _shown(value)}


def points_of(record: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """The points of training and validation by step, as they would have been logged, without epoch and tokens."""
    points: dict[int, dict[str, float]] = {}
    for kind, curve in (("train", "curve"), ("validation", "validation")):
        for point in record["training"].get(curve) or []:
            values = {f"{kind}/{key}": value for key, value in point.items() if key != "step" and value is not None}
            points.setdefault(int(point["step"]), {}).update(values)
    for step in sorted(points):
        yield step, points[step] | {STEP: step}


def _shown(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
