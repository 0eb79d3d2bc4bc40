"""Names for what a record holds, as ``report.where``, ``report.reference`` and ``select.per`` use them.

A setting has the name that it has on the command line (``lora.r``, ``trainer.epochs``, ``seed``), a score its own name
(``loss``: after training; ``before.loss``: of the untouched model), and everything else its path in the record.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.record.readings import validation_loss

Record = Mapping[str, Any]

COSTS = ("trainable_parameters", "adapter_bytes", "train_s", "peak_train_bytes", "tokens_per_s")


def record_fields(record: Record) -> dict[str, Any]:
    """Every field of a record by name; lists stay whole."""
    plan = record["plan"]
    fields = dict(flat({key: value for key, value in record.items() if key != "training"}))
    fields |= flat(plan)
    fields |= plan_fields(plan)
    fields |= costs(record)
    fields["validation_loss"] = validation_loss(record)
    for when in ("before", "after"):
        fields |= {f"{when}.{name}": value for name, value in record["scores"].get(when, {}).items()}
    fields |= record["scores"].get("after", {})
    return fields | {"run": record["fingerprint"], "method": record["method"]}


def plan_fields(plan: Record) -> dict[str, Any]:
    """The settings of a plan under the names that they have on the command line."""
    method = plan["method"]
    rate = plan.get("learning_rate")
    own = {f"{method}.{name}": value for name, value in flat(plan.get("settings", {}))}
    names = {"method": method, "peft": method, "peft.method": method}
    return own | names | {"trainer.learning_rate": rate, "learning_rate": rate}


def flat(node: Record, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted name; an empty mapping is a leaf."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def costs(record: Record) -> dict[str, float | None]:
    """What a run took, each by the name of its column; None if unknown."""
    memory, training = record.get("memory_bytes", {}), record.get("training", {})
    return {
        "trainable_parameters": record.get("parameters", {}).get("trainable"),
        "adapter_bytes": (record.get("adapter") or {}).get("bytes") or _external_bytes(record),
        "train_s": record.get("times_s", {}).get("train"),
        "peak_train_bytes": memory.get("train_peak"),
        "tokens_per_s": training.get("tokens_per_s"),
    }


def _external_bytes(record: Record) -> int | None:
    """Size of an adapter from elsewhere."""
    files = (record.get("external") or {}).get("files")
    return sum(files.values()) if files else None


def method_name(record: Record) -> str:
    """The method; ``library`` is many, and the plan says which one."""
    if record.get("external"):
        return f"{record['method']}:{record['external']['name']}"
    kind = record["plan"].get("settings", {}).get("type") if record["method"] == "library" else None
    return f"library:{kind}" if kind else str(record["method"])
