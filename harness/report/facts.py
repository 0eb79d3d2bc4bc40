"""The facts that a reader needs to repeat an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.fields import Record, flat
from harness.report.model import Fact
from harness.report.texts import Clean, value_text

# Facts that a reader needs to repeat an experiment, in this order; the others follow from the plan.
_FACTS = (
    *("model.name", "model.path", "model.revision", "model.dtype", "model.quantization", "model.prune"),
    *("data.name", "data.path", "data.subset", "data.template", "data.max_tokens", "rows.train", "rows.validation"),
    *("rows.test", "trainer.objective", "trainer.epochs", "trainer.max_steps", "trainer.batch_size"),
    *("trainer.gradient_accumulation_steps", "trainer.schedule", "trainer.warmup_share", "trainer.weight_decay"),
    *("trainer.keep_best", "scoring.split", "scoring.metrics", "scoring.tokenize"),
    *("scoring.generation.max_new_tokens", "scoring.generation.do_sample", "code.version", "code.git_commit"),
    *("device.type", "device.name", "device.threads", "inferred.dtype", "inferred.base_weights"),
    *("versions.python", "versions.torch", "versions.transformers", "versions.peft", "seed"),
)


def common_facts(records: Sequence[Record]) -> dict[str, Any]:
    """The facts that all of these records have, with one value."""
    shared: dict[str, Any] = {}
    for number, record in enumerate(records):
        parts = {key: record.get(key, {}) for key in ("rows", "code", "device", "inferred", "versions")}
        facts = {name: value for name, value in (*flat(record["plan"]), *flat(parts)) if name in _FACTS}
        if number == 0:
            shared = facts
        else:
            shared = {name: value for name, value in shared.items() if name in facts and facts[name] == value}
    return {name: shared[name] for name in _FACTS if name in shared}


def shown_facts(values: Mapping[str, Any], clean: Clean) -> list[Fact]:
    """Those of these facts that say something."""
    return [Fact(name, clean(value_text(value))) for name, value in values.items() if not _says_nothing(value)]


def _says_nothing(value: Any) -> bool:
    return value is None or value == "none" or (isinstance(value, float) and value == 0.0)
