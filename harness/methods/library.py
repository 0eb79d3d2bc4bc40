"""Every type of PEFT by its own name: settings are checked against the type's configuration class."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.methods.context import SEEDS, BuildContext, SheetValues
from harness.methods.fields import Sheet
from harness.methods.knobs import Knob, counts, up_to_width
from harness.methods.method import Method
from harness.methods.rates import RateRule
from harness.methods.traits import LINEAR, NO_MERGE, PLAIN, PREFIX, PROMPT, WHOLE, Traits

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

# Types of peft=library without a sheet.
LIBRARY = {
    "adamss": LINEAR,
    "beft": replace(NO_MERGE, conv1d=False),  # no merging on models without biases
    "cartridge": PREFIX,
    "deft": WHOLE,
    "delora": LINEAR,
    "frod": WHOLE,
    "glora": LINEAR,
    "gralora": PLAIN,
    "hira": PLAIN,
    # Its router averages over the tokens of a batch.
    "lily": replace(NO_MERGE, prompt_learning=True, token_wise=False, conv1d=False),
    "multitask_prompt_tuning": replace(PROMPT, multi_adapter=False),
    "osf": LINEAR,
    "peanut": LINEAR,
    "poly": replace(NO_MERGE, multi_adapter=False, token_wise=False, conv1d=False),
    "psoft": LINEAR,
    "pvera": replace(PLAIN, token_wise=False),  # draws noise for each batch
    "shadow": replace(NO_MERGE, token_wise=False),
    "supertuning": LINEAR,
    "tinylora": WHOLE,
    "unilora": Traits(identity_at_start=False).unquantized("silently trains nothing on a quantized base"),
    "waveft": PLAIN,
}

CAVEATS = {
    "lily": "library.type=lily averages its routing over all tokens of a batch: scores depend on batch sizes",
}


@dataclass(kw_only=True)
class Library(Sheet):
    """Any other type of PEFT, with settings under the names of PEFT's own configuration class."""

    type: str
    settings: dict[str, Any]


def check_library(sheet: Library) -> Iterator[str]:
    """Reads PEFT's own classes, which takes seconds to import."""
    yield from library_faults(sheet.type, sheet.settings)


def build_library(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """A type of PEFT that has no sheet of its own.

    Raises:
        ModelFault: PEFT has no such type, or its configuration no such field.
    """
    name, chosen = settings["type"].lower(), dict(settings["settings"])
    found = library_faults(name, chosen)
    if found:
        raise ModelFault("; ".join(found))
    known = library_fields(name)
    if "target_modules" in known and name not in OWN_PLACES:
        chosen.setdefault("target_modules", "all-linear")
    seeds = {field: context.seed for field in SEEDS if field in known and chosen.get(field) is None}
    return library_types()[name](task_type="CAUSAL_LM", **chosen | seeds)


def library_faults(name: str, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with these settings, as sentences."""
    name = name.lower()
    if name in REFUSED:
        return [f"library.type={name} {REFUSED[name]}"]
    if name not in library_types():
        return [
            f"library.type={name} is unknown; choose one of {', '.join(sorted(set(library_types()) - set(REFUSED)))}"
        ]
    known = library_fields(name)
    found = [
        f"library.settings.{key}={value} is unknown to {library_types()[name].__name__}; it has {', '.join(known)}"
        for key, value in settings.items()
        if key not in known
    ]
    if "num_virtual_tokens" in known and name != "cpt" and settings.get("num_virtual_tokens") is None:
        found.append(f"library.type={name} needs library.settings.num_virtual_tokens; e.g. 20")
    return found


def library_types() -> dict[str, Any]:
    """Configuration classes of PEFT, ours among them, by the type's name in lower case."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from harness import tuners

    tuners.register()
    return {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def library_fields(name: str) -> list[str]:
    """Settings that a type's configuration class takes, in its order."""
    return [field.name for field in dataclasses.fields(library_types()[name]) if field.name not in BOOKKEEPING]


def library_defaults(name: str) -> dict[str, Any]:
    """PEFT's own value of each setting."""
    given = [field for field in dataclasses.fields(library_types()[name]) if field.name not in BOOKKEEPING]
    made = {field.name: field.default_factory() for field in given if callable(field.default_factory)}
    return {field.name: made.get(field.name, field.default) for field in given}


def method_of_type(peft_type: str) -> str:
    """Name of the method whose type PEFT calls this, in lower case; the same name if no method has another."""
    return {"adaption_prompt": "llama_adapter"}.get(peft_type, peft_type)


def has_rank(settings: SheetValues, quantity: str) -> bool:
    """Whether the type has a rank."""
    return "r" in library_fields(settings["type"].lower())


def has_prompt(settings: SheetValues, quantity: str) -> bool:
    """Whether the type has virtual tokens."""
    return "num_virtual_tokens" in library_fields(settings["type"].lower())


METHODS = {
    "library": Method(
        Library,
        build_library,
        replace(LINEAR, token_wise=False),  # of a type that is not known here
        check_library,
        rate=RateRule(0.005, 0.001, "as LoRA's; no type has a measurement of its own"),
        knobs=(
            Knob("settings.r", up_to_width, serves=has_rank),
            Knob("settings.num_virtual_tokens", counts, serves=has_prompt),
        ),
    )
}
