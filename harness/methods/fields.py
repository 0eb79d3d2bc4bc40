"""Fields that sheets share, and the checks that any sheet can need."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import above, at_least, brief, fraction, one_of
from harness.frozen import ConfigNode

COUNTS = frozenset(  # of ranks, tokens, layers, blocks, steps: at least 1 wherever a sheet has them
    [
        "r",
        "init_r",
        "target_r",
        "num_virtual_tokens",
        "encoder_num_layers",
        "deltaT",
        "encoder_hidden_size",
        "bottleneck_size",
        "reduction_factor",
        "block_size",
        "vector_length",
        "num_vectors",
        "topk",
        "mini_r",
        "n_frequency",
        "oft_block_size",
        "boft_block_size",
        "boft_block_num",
        "boft_n_butterfly_factor",
        "group_size",
        "num_cayley_neumann_terms",
        "adapter_len",
        "adapter_layers",
        "frequent_tokens",
        "randlora_alpha",
    ]
)


CHOICES: dict[str, tuple[Any, ...]] = {
    "adapter.placement": ("houlsby", "pfeiffer", "parallel"),
    "shira.mask_type": ("random",),
    "vera.bias": ("none", "all", "vera_only"),
    "randlora.bias": ("none", "all", "randlora_only"),
    "vblora.bias": ("none", "all", "vblora_only"),
    "miss.init_weights": (True, False, "bat", "mini"),
    "c3a.init_weights": (True, False, "gaussian", "kaiming_uniform", "xavier_uniform"),
    "oft.bias": ("none", "all", "oft_only"),
    "boft.bias": ("none", "all", "boft_only"),
    "hra.bias": ("none", "all", "hra_only"),
    "road.variant": ("road_1", "road_2", "road_4"),
    "cpt.opt_weighted_loss_type": ("none", "decay"),
}


def field_faults(method: str, sheet: dict[str, Any]) -> Iterator[str]:
    """Faults that any sheet can have, by the name of the field."""
    for name, value in sheet.items():
        key = f"{method}.{name}"
        if name == "learning_rate":
            yield from above(key, value, 0)
        elif name in COUNTS:
            yield from at_least(key, value, 1)
        elif key in CHOICES:
            yield from one_of(key, value, CHOICES[key])
        elif name in ("lora_alpha", "alpha"):
            yield from above(key, value, 0)
        elif name.endswith("dropout"):
            yield from fraction(key, value)
        elif name in ("target_modules", "exclude_modules", "feedforward_modules", "modules"):
            yield from _names(key, value)
        elif name == "layers_to_transform" and value is not None:
            yield from _layers(key, value, method, sheet["target_modules"])
        elif name in ("rank_pattern", "alpha_pattern"):
            for pattern, item in value.items():
                yield from _expression(key, pattern)
                yield from above(f"{key}.{pattern}", item, 0)


def _names(key: str, value: Any) -> Iterator[str]:
    listed = isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
    if not (value is None or listed or (isinstance(value, str) and value)):
        yield f"{key}={brief(str(value))} is neither a name, a list of names nor null; e.g. {key}=[q_proj,v_proj]"
    elif isinstance(value, str):
        yield from _expression(key, value)


def _expression(key: str, value: str) -> Iterator[str]:
    """PEFT reads one text as a regular expression for whole names."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        yield f"{key}={brief(value)} is no regular expression ({error}); give a list of names, e.g. [q_proj,v_proj]"


def _layers(key: str, value: list[int], method: str, targets: Any) -> Iterator[str]:
    if not value or any(layer < 0 for layer in value):
        yield f"{key}={value} must list layers, counted from 0; or null for all layers"
    # Elsewhere all-linear becomes a list first; a regular expression never does, and would win silently.
    if isinstance(targets, str) and (targets != "all-linear" or method in ("lora", "adalora")):
        yield f"{key}={value} needs a list in {method}.target_modules, not {targets}; e.g. [q_proj,v_proj]"


@dataclass
class Placed(ConfigNode):
    """What most methods of PEFT share: which layers they sit on."""

    learning_rate: float
    target_modules: Any
    exclude_modules: Any
    modules_to_save: list[str] | None
    layers_to_transform: list[int] | None


@dataclass
class Targeted(ConfigNode):
    """The same for methods that exclude nothing and know no layer numbers."""

    learning_rate: float
    target_modules: Any
    modules_to_save: list[str] | None
