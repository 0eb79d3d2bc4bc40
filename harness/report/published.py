"""Published results beside the runs of one's own: which table they belong to, and what speaks against comparing them.

They enter no statistic: their rows, prompts and seeds are not those of the runs beside them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.plan.spec import digest
from harness.record.foreign import UNSTATED
from harness.report.fields import Record, costs, method_name
from harness.report.model import Published

LIBRARIES = ("peft", "torch", "transformers")


def is_foreign(record: Record) -> bool:
    """Whether the record was imported."""
    return bool(record.get("foreign"))


def belongs_to(foreign: Record, own: Record) -> bool:
    """Whether the result is of the model and the data of this run of one's own."""
    plan, model = own["plan"], foreign["plan"]["model"]["path"]
    if str(plan.get("model", {}).get("path")).lower() != str(model).lower():
        return False
    data = plan.get("data", {})
    here = {str(data.get("name")).lower(), str(data.get("path")).lower().rpartition("/")[2]}
    return bool(here & {str(name).lower() for name in foreign["foreign"]["data"]})


def place(foreign: Record) -> str:
    """Key of the table for results that belong to no run of one's own: model and data."""
    return digest([foreign["plan"]["model"]["path"], foreign["foreign"]["data"]])


def published_rows(foreign: Sequence[Record], own: Sequence[Record]) -> tuple[Published, ...]:
    """The rows, by method and experiment.

    Args:
        own: the runs beside them; without any, each result is compared with the majority of the published ones.
    """
    usual = _facts_of(own) if own else _majority(foreign)
    seeds: dict[str, set[int]] = {}
    for record in foreign:
        seeds.setdefault(_setting_key(record), set()).add(record["plan"]["seed"])
    rows = [_row(record, usual, bool(own), seeds[_setting_key(record)]) for record in foreign]
    return tuple(sorted(rows, key=lambda row: (row.method, row.experiment, row.seed)))


def _setting_key(record: Record) -> str:
    plan = record["plan"]
    return digest([record["foreign"]["experiment"], plan["settings"], plan["learning_rate"]])


def _row(record: Record, usual: Mapping[str, set[str]], beside_own: bool, seeds: set[int]) -> Published:
    plan = record["plan"]
    confounds = [f"seed {plan['seed']} only"] if len(seeds) == 1 else []
    here = "here" if beside_own else "most"
    for name, value in _facts(record).items():
        others = usual.get(name, set())
        if others and value not in others:
            confounds.append(f"{name} {value} ({here} {' and '.join(sorted(others))})")
    if beside_own:
        confounds.append("other prompts, other code")
    return Published(
        fingerprint=str(record["fingerprint"]),
        source=record["foreign"]["source"],
        experiment=record["foreign"]["experiment"],
        method=method_name(record),
        learning_rate=plan.get("learning_rate"),
        seed=plan["seed"],
        scores={name: float(value) for name, value in record["scores"]["after"].items() if value is not None},
        costs=costs(record) | {"adapter_bytes": record["foreign"].get("adapter_bytes")},
        confounds=tuple(confounds),
    )


def _facts(record: Record) -> dict[str, str]:
    """What may differ besides the method, in words that are equal if the fact is."""
    plan, versions = record["plan"], record.get("versions", {})
    trainer, data, scoring = (plan.get(key, {}) for key in ("trainer", "data", "scoring"))
    facts: dict[str, Any] = {name: versions.get(name) for name in LIBRARIES}
    facts["dtype"] = record.get("inferred", {}).get("dtype") or plan.get("model", {}).get("dtype")
    facts["model revision"] = (plan.get("model", {}).get("revision") or "")[:12] or None
    facts["weight decay"] = _decay(trainer.get("weight_decay"))
    facts["training data"] = data.get("name")
    rows = (trainer.get("batch_size") or 1) * (trainer.get("gradient_accumulation_steps") or 1)
    facts["training"] = f"{record.get('training', {}).get('optimizer_steps', 0)} steps of {rows} rows"
    facts["schedule"] = trainer.get("schedule")
    facts["answers up to"] = _tokens(scoring.get("generation", {}).get("max_new_tokens"))
    facts["device"] = record.get("device", {}).get("name")
    return {name: str(value) for name, value in facts.items() if value is not None}


def _decay(value: Any) -> str | None:
    return None if value is None else value if value == UNSTATED else f"{float(value):g}"


def _tokens(value: Any) -> str | None:
    return None if value is None else f"{value} tokens"


def _facts_of(records: Sequence[Record]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, value in _facts(record).items():
            found.setdefault(name, set()).add(value)
    return found


def _majority(records: Sequence[Record]) -> dict[str, set[str]]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in _facts(record).items():
            counts.setdefault(name, Counter())[value] += 1
    return {name: {each.most_common(1)[0][0]} for name, each in counts.items()}
