"""Block sizes, which must divide the dimensions of the layers that a method adapts.

PEFT fails deep inside a layer if they do not, and for OFT silently takes another size. Here a size that the sheet
leaves open (null) becomes the largest that fits every layer, up to PEFT's default, and a given size is checked.
"""

import copy
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault
from harness.methods.context import SheetValues

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

LISTED = 12  # fitting sizes that a message names


@dataclass(frozen=True)
class Rule:
    """``field`` must divide the dimensions of every layer on these sides, and be a multiple of ``step``."""

    field: str
    sides: tuple[str, ...]
    at_most: int  # PEFT's default
    step: int = 1
    instead: str | None = None  # another field that determines the size
    pattern: str | None = None  # a field with sizes for some of the layers


BOTH = ("input", "output")


RULES = {
    "OFT": Rule("oft_block_size", ("input",), 32, instead="r"),
    "BOFT": Rule("boft_block_size", ("input",), 4, instead="boft_block_num"),
    "C3A": Rule("block_size", BOTH, 256, pattern="block_size_pattern"),
    "VBLORA": Rule("vector_length", BOTH, 256),
    "ROAD": Rule("group_size", ("output",), 64, step=2),
    "GRALORA": Rule("gralora_k", BOTH, 2),
    "POLY": Rule("n_splits", BOTH, 1),
}


def fit_sizes(config: "PeftConfig", settings: SheetValues, model: "nn.Module", prefix: str) -> None:
    """Set or check the configuration's block size, if its type has one.

    Args:
        settings: the sheet; a size that is null or absent is chosen here.
        prefix: of the key in messages, e.g. ``oft``.

    Raises:
        ModelFault: a given size does not divide a layer's dimension; names both, and the sizes that would.
    """
    rule = RULES.get(str(getattr(config.peft_type, "value", config.peft_type)))
    if rule is None:
        return
    field = rule.field
    if rule.instead is not None and settings.get(rule.instead):
        field = rule.instead
    dimensions = _dimensions(config, model, rule)
    if not dimensions:
        return  # nothing is targeted, which PEFT reports itself
    fitting = _divisors(dimensions, rule)
    if settings.get(field) is None:
        below = [size for size in fitting if size <= rule.at_most]
        if not below:
            raise ModelFault(f"no {prefix}.{field} fits this model: the layers' dimensions share no factor {rule.step}")
        setattr(config, field, below[-1])
        return
    size = settings[field]
    if size in fitting:
        return
    place, dimension = next(
        ((place, dimension) for place, dimension in dimensions.items() if size < 1 or dimension % size),
        next(iter(dimensions.items())),
    )
    shown = ", ".join(str(size) for size in fitting[:LISTED] + fitting[LISTED:][-1:])
    raise ModelFault(
        f"{prefix}.{field}={size} does not divide the {place} of {dimension}"
        + (f" into parts that are a multiple of {rule.step}" if rule.step > 1 else "")
        + f"; sizes that divide every targeted layer: {shown}"
    )


def fitting_sizes(config: "PeftConfig", model: "nn.Module") -> list[int]:
    """The block sizes that fit every layer, in rising order; empty if nothing is targeted."""
    rule = RULES[str(getattr(config.peft_type, "value", config.peft_type))]
    dimensions = _dimensions(config, model, rule)
    return _divisors(dimensions, rule) if dimensions else []


def _divisors(dimensions: dict[str, int], rule: Rule) -> list[int]:
    common = math.gcd(*dimensions.values())
    return [size for size in range(rule.step, common + 1, rule.step) if common % size == 0]


def _dimensions(config: Any, model: "nn.Module", rule: Rule) -> dict[str, int]:
    """The dimensions that the size must divide, by a description of where they are."""
    patterns = list(getattr(config, rule.pattern)) if rule.pattern else []
    found: dict[str, int] = {}
    for name, (inputs, outputs) in targeted_layers(config, model).items():
        if any(re.fullmatch(rf"(.*\.)?{pattern}", name) for pattern in patterns):
            continue
        for side, dimension in (("input", inputs), ("output", outputs)):
            if side in rule.sides:
                found[f"{side} dimension of {name}"] = dimension
    return found


def targeted_layers(config: Any, model: "nn.Module") -> dict[str, tuple[int, int]]:
    """Input and output dimensions of the linear layers that PEFT would adapt, by name."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists

    chosen = copy.copy(config)
    if chosen.target_modules is None:
        tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        model_type = getattr(model.config, "model_type", None)
        known = getattr(tuner, "target_module_mapping", None) or {}
        if str(getattr(config.peft_type, "value", config.peft_type)) == "IA3":  # whose class does not name its own
            from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as known
        chosen.target_modules = known.get(model_type)
        if chosen.target_modules is None:
            return {}
    if isinstance(chosen.target_modules, str):
        chosen = _maybe_include_all_linear_layers(chosen, model)
    found: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        size = _size(module)
        if size is not None and check_target_module_exists(chosen, name):
            found[name] = size
    return found


def refuse_conv1d(config: "PeftConfig", model: "nn.Module", who: str) -> None:
    """Refuse GPT-2's transposed layers, for PEFT types that adapt only ``nn.Linear``.

    Raises:
        ModelFault: such a layer is targeted. PEFT refuses most of these too, but OLoRA fails only when the model runs.
    """
    from transformers.pytorch_utils import Conv1D

    if getattr(config, "target_modules", None) is None or not any(isinstance(m, Conv1D) for m in model.modules()):
        return
    for name in targeted_layers(config, model):
        if isinstance(model.get_submodule(name), Conv1D):
            raise ModelFault(
                f"{who} does not fit this model: PEFT supports it on nn.Linear only, and {name} is a Conv1D, "
                "GPT-2's kind of linear layer; choose a method that supports it (lora, ia3, vera, adapter, ...), or "
                "target_modules without such layers"
            )


def _size(module: Any) -> tuple[int, int] | None:
    """Input and output dimensions of a linear layer; None for other modules."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):  # stores its weight transposed
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)
    return None
