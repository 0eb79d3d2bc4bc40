"""Which runs may be compared, which are replicates, and how runs differ beyond their settings."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.plan.extensions import METHOD
from harness.plan.spec import CONTINUE_FROM, digest, effective_settings
from harness.report.fields import Record, flat

# What of a model changes rounding alone; everything else that a plan holds beside the seed makes another configuration.
NUMERICS_OF_MODEL = ("device", "attn_implementation", "device_map")

# How the model is loaded, not which model it is: settings that may be compared with each other.
_LOADING = (*NUMERICS_OF_MODEL, "dtype", "quantization", "prune", "trust_remote_code")

_FOLLOWS = ("data.split_seed",)  # settings that are idle in some plans because of another one, which is shown
OF_TRAINING = ("teacher", METHOD, "adapter", CONTINUE_FROM)  # what a plan reads besides model, data and scoring
_TRAINING_DATA = ("train_on", "class_weights")  # what of the data does not change the rows that are scored


@dataclass(frozen=True)
class Difference:
    """A way in which runs of one group may differ besides their settings."""

    name: str
    consequence: str
    read: Callable[[Record], Any]


def _device(record: Record) -> str:
    device = record.get("device", {})
    return " ".join(str(device[key]) for key in ("type", "name") if device.get(key)) or "unknown device"


def dtype(record: Record) -> str:
    """Precision of the run's arithmetic."""
    known = record.get("inferred", {}).get("dtype") or record["plan"].get("model", {}).get("dtype")
    return str(known or "unknown")


DIFFERENCES = (
    Difference("code", "results of different versions", lambda record: record["code"]["version"]),
    Difference("device", "times and memory are not comparable", _device),
    Difference("dtype", "rounding differs", dtype),
    Difference("base weights", "the untouched models differ", lambda record: _inferred(record, "base_weights")),
    Difference("training tokens", "different data or labels", lambda record: _audit(record, "supervised_sha256")),
    Difference("objective of training", "validation losses of dpo are of pairs", lambda record: _objective(record)),
    Difference("scoring template", "prompts that were not trained", lambda record: _template(record)),
    Difference("kind of memory", "peaks are not comparable", lambda record: record.get("memory_bytes", {}).get("kind")),
)
_NUMERICS = tuple(f"model.{name}" for name in NUMERICS_OF_MODEL)

# Those in which replicates are equal: the others follow from the plan, or concern figures of cost alone.
_DECISIVE = ("code", "dtype", "base weights")


def _template(record: Record) -> str:
    plan = record["plan"]
    return str(plan.get("scoring", {}).get("template") or plan.get("data", {}).get("template"))


def _objective(record: Record) -> str:
    objective = str(record["plan"].get("trainer", {}).get("objective"))
    return objective if objective == "dpo" else "completions"


def _inferred(record: Record, name: str) -> Any:
    return record.get("inferred", {}).get(name)


def _audit(record: Record, name: str) -> Any:
    return record.get("audit", {}).get(name)


def effective(record: Record) -> dict[str, Any]:
    """The record's plan without what has no effect; as it is, if a version with other settings wrote it."""
    plan = dict(record["plan"])
    try:
        return effective_settings(plan)
    except (KeyError, TypeError, AttributeError):
        return plan


def group_key(plan: Mapping[str, Any]) -> str:
    """Hash of model, data and protocol; runs that share it are scored on the same rows in the same way.

    Args:
        plan: the effective one.
    """
    return digest(comparable(plan))


def comparable(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a plan that runs must share to stand in one table."""
    model = {key: value for key, value in plan.get("model", {}).items() if key not in _LOADING}
    data = {key: value for key, value in plan.get("data", {}).items() if key not in _TRAINING_DATA}
    if isinstance(data.get("columns"), Mapping):
        data["columns"] = {name: column for name, column in data["columns"].items() if name != "weight"}
    if isinstance(data.get("limits"), Mapping):
        data["limits"] = {split: limit for split, limit in data["limits"].items() if split != "train"}
        if not data.get("fractions") and not any(data["limits"].values()):
            data.pop("split_seed", None)  # it decides which rows are trained, not which are scored
    inputs = {key: value for key, value in plan.get("inputs", {}).items() if key not in OF_TRAINING}
    # Batch sizes change no more than rounding; a template other than in training is the setting that is compared.
    own = ("loss_batch_size", "template")
    scoring = {key: value for key, value in plan.get("scoring", {}).items() if key not in own}
    if isinstance(scoring.get("generation"), Mapping):
        scoring["generation"] = {key: value for key, value in scoring["generation"].items() if key != "batch_size"}
    return {"model": model, "data": data, "scoring": scoring, "inputs": inputs}


def configuration_key(record: Record, plan: Mapping[str, Any]) -> str:
    """Hash of everything but the seed and what changes rounding alone; runs that share it are replicates."""
    model = {key: value for key, value in plan.get("model", {}).items() if key not in NUMERICS_OF_MODEL}
    own = {key: value for key, value in plan.items() if key != "seed"} | {"model": model}
    return digest([own, *(str(each.read(record)) for each in DIFFERENCES if each.name in _DECISIVE)])


def numerics_key(record: Record) -> str:
    """Hash of what changes rounding alone: device, attention, threads."""
    plan, device = record["plan"], record.get("device", {})
    model = [plan.get("model", {}).get(name) for name in NUMERICS_OF_MODEL]
    threads = plan.get("trainer", {}).get("threads")
    return digest([model, threads, [device.get(name) for name in ("type", "name", "threads")]])


def varying(plans: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By key of configuration, the settings in which it differs from others.

    Settings of a method are compared among configurations of that method; all others among all of them.

    Args:
        plans: by key, the method and its effective plan.
    """
    leaves = {key: (method, _leaves(plan)) for key, (method, plan) in plans.items()}
    values: dict[tuple[str, str], set[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[str] = Counter()
    for method, plan in leaves.values():
        sizes.update((method, ""))
        for name, value in plan.items():
            place = (_peers(name, method), name)
            values.setdefault(place, set()).add(repr(value))
            counts[place] += 1

    def differs(name: str, peers: str) -> bool:
        partly = counts[peers, name] < sizes[peers] and name not in _FOLLOWS
        return len(values[peers, name]) > 1 or partly

    return {
        key: {
            name.removeprefix("settings."): value for name, value in plan.items() if differs(name, _peers(name, method))
        }
        for key, (method, plan) in leaves.items()
    }


def _leaves(plan: Mapping[str, Any]) -> dict[str, Any]:
    without = ("seed", "method", "inputs", "scoring")
    leaves = dict(flat({key: value for key, value in plan.items() if key not in without}))
    template = plan.get("scoring", {}).get("template")  # trained with one template, scored with another
    leaves |= {"scoring.template": template} if template else {}
    if source := plan.get("inputs", {}).get(CONTINUE_FROM):
        leaves[f"trainer.{CONTINUE_FROM}"] = source
    return {name: value for name, value in leaves.items() if name not in _NUMERICS}


def _peers(name: str, method: str) -> str:
    return method if name.startswith("settings.") or name == "learning_rate" else ""


def marks(records: Mapping[str, Record]) -> dict[str, list[str]]:
    """By key, in what this record differs from most of its group: ``code 1f3a…``, ``dtype bfloat16``."""
    found: dict[str, list[str]] = {key: [] for key in records}
    for each in DIFFERENCES:
        if each.name == "kind of memory":
            continue
        counts = Counter(str(each.read(record)) for record in records.values())
        if len(counts) < 2:
            continue
        usual = counts.most_common(1)[0][0]
        for key, record in records.items():
            value = str(each.read(record))
            if value != usual:
                found[key].append(f"{each.name} {_short(value)}")
    return found


def differences(rows: Sequence[tuple[int, Record]], scores: Iterable[str]) -> list[str]:
    """How rows differ beyond their settings, one sentence each, so that nobody compares what is not comparable."""
    signatures = tuple(
        Difference(f"signature of {name}", "its values are not comparable", _signature(name)) for name in scores
    )
    found = []
    for each in (*DIFFERENCES, *signatures):
        by_value: dict[str, list[int]] = {}
        for number, record in rows:
            by_value.setdefault(str(each.read(record)), []).append(number)
        if len(by_value) > 1:
            parts = (f"{ranges(numbers)}: {_short(value)}" for value, numbers in by_value.items())
            found.append(f"rows differ in {each.name} ({each.consequence}): {'; '.join(parts)}")
    return found


@cache
def _signature(name: str) -> Callable[[Record], Any]:
    return lambda record: record["scores"].get("signatures", {}).get(name)


def _short(value: str) -> str:
    return value[:12] if len(value) >= 16 and value.isalnum() else value


def ranges(numbers: Iterable[int]) -> str:
    """``1-3, 7`` for 1, 2, 3 and 7."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else str(each[0]) for each in spans)
