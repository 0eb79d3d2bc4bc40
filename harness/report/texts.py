"""What a report calls things: settings, groups, paths; and what it shows of a text."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.methods.registry import METHODS
from harness.plan.spec import plain
from harness.record.redact import redactor
from harness.report.fields import Record, method_name
from harness.runtime.terminal import printable

Clean = Callable[[str], str]


def cleaner() -> Clean:
    """What a report shows of a text: no secret, and no control character; each format then escapes it for itself."""
    redact = redactor()
    return lambda text: printable(redact(str(text)))


def short_path(path: Path) -> str:
    """The path relative to the working folder if it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def title_of(plan: Mapping[str, Any]) -> str:
    """The model, data and split of a plan."""
    model, data = plan.get("model", {}), plan.get("data", {})
    title = f"{model.get('name') or 'unknown model'} on {data.get('name') or 'unknown data'}"
    split = plan.get("scoring", {}).get("split")
    return f"{title}, {split} split" if split else title


def labels_of(configurations: Mapping[str, tuple[str, str, Mapping[str, Any]]]) -> dict[str, str]:
    """Names that tell configurations apart in a sentence: method and setting, and the learning rate if it is needed."""
    return {
        key: " ".join(part for part in (method, setting, _rate(differ)) if part)
        for key, (method, setting, differ) in configurations.items()
    }


def _rate(differ: Mapping[str, Any]) -> str:
    rate = differ.get("learning_rate")
    return "" if rate is None else f"rate {rate:.4g}"


def setting_text(differ: Mapping[str, Any]) -> str:
    """``r=8 epochs=4``; the learning rate has a column of its own."""
    hidden = ("learning_rate", "trainer.learning_rate")
    return " ".join(f"{name}={value_text(value)}" for name, value in differ.items() if name not in hidden)


def value_text(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def natural_order(record: Record, setting: str) -> tuple[int, list[tuple[float, str]], float]:
    """A key that sorts by method, then by setting with numbers by their size, then by learning rate."""
    method = method_name(record)
    place = list(METHODS).index(method) if method in METHODS else len(METHODS)
    parts = re.split(r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)", setting)
    return place, [(_number(part), part) for part in parts], record["plan"].get("learning_rate") or 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
