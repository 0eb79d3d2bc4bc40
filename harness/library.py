"""Every type of PEFT by its own name: settings are checked against the type's configuration class."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.situation import SEEDS, Settings, Situation

if TYPE_CHECKING:
    from peft import PeftConfig

# What every configuration of PEFT carries besides the settings of its method.
BOOKKEEPING = frozenset({"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"})
BOOKKEEPING |= {"revision", "inference_mode"}
REFUSED = {
    "xlora": "mixes LoRA adapters that were trained before, with a gate over the finished ones; train those with "
    "peft=lora, then use peft.XLoraConfig on them"
}
# These choose their places themselves: blocks, embeddings or attention, not linear layers.
OWN_PLACES = frozenset({"shadow", "ln_tuning", "ia3", "trainable_tokens", "adaption_prompt", "adapter"})


def library(settings: Settings, situation: Situation) -> "PeftConfig":
    """A type of PEFT that has no sheet of its own.

    Raises:
        ModelFault: PEFT has no such type, or its configuration no such field.
    """
    name, chosen = settings["type"].lower(), dict(settings["settings"])
    found = faults(name, chosen)
    if found:
        raise ModelFault("; ".join(found))
    known = fields(name)
    if "target_modules" in known and name not in OWN_PLACES:
        chosen.setdefault("target_modules", "all-linear")
    seeds = {field: situation.seed for field in SEEDS if field in known and chosen.get(field) is None}
    return types()[name](task_type="CAUSAL_LM", **chosen | seeds)


def faults(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with these settings, as sentences."""
    name = name.lower()
    if name in REFUSED:
        return [f"library.type={name} {REFUSED[name]}"]
    if name not in types():
        return [f"library.type={name} is unknown; choose one of {', '.join(sorted(set(types()) - set(REFUSED)))}"]
    known = fields(name)
    found = [
        f"library.settings.{key}={value} is unknown to {types()[name].__name__}; it has {', '.join(known)}"
        for key, value in settings.items()
        if key not in known
    ]
    if "num_virtual_tokens" in known and name != "cpt" and settings.get("num_virtual_tokens") is None:
        found.append(f"library.type={name} needs library.settings.num_virtual_tokens; e.g. 20")
    return found


def types() -> dict[str, Any]:
    """Configuration classes of PEFT, ours among them, by the type's name in lower case."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from harness import tuners

    tuners.register()
    return {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def fields(name: str) -> list[str]:
    """Settings that a type's configuration class takes, in its order."""
    return [field.name for field in dataclasses.fields(types()[name]) if field.name not in BOOKKEEPING]


def defaults(name: str) -> dict[str, Any]:
    """PEFT's own value of each setting."""
    given = [field for field in dataclasses.fields(types()[name]) if field.name not in BOOKKEEPING]
    made = {field.name: field.default_factory() for field in given if callable(field.default_factory)}
    return {field.name: made.get(field.name, field.default) for field in given}
