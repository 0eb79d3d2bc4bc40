"""Which modules of a base model a tuner changes. Names are those of ``model.named_modules()``.

Everything here looks through tuner layers, so that a second adapter selects the same modules as the first.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

Targets = str | Collection[str]


def holders(model: nn.Module, twice: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """Every module with parameters of its own (not only its children's), unwrapped, with its name.

    ``twice``: a module that has two names is yielded under both.
    """
    wrapper = None
    for name, module in model.named_modules(remove_duplicate=not twice):
        if wrapper is not None and name.startswith(wrapper):
            continue
        if isinstance(module, AuxiliaryTrainingWrapper):
            wrapper = f"{name}."  # a copy that PEFT already trains (modules_to_save)
            continue
        if isinstance(module, BaseTunerLayer):
            wrapper = f"{name}."
            module = module.get_base_layer()
        if name and any(parameter is not None for parameter in module._parameters.values()):
            yield name, module


def matches(name: str, targets: Targets) -> bool:
    """Whether ``targets`` (a regular expression for whole names, or a list of endings) matches this module."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def under(name: str, targets: Targets) -> bool:
    """Whether ``targets`` matches this module or one that contains it."""
    parts = name.split(".")
    return any(matches(".".join(parts[:end]), targets) for end in range(len(parts), 0, -1))


def refuse_unmatched(targets: Targets | None, candidates: Collection[str], setting: str, what: str) -> None:
    """Raise ``ValueError`` if an entry of a list selects none of ``candidates``: it would be dropped silently."""
    if targets is None or isinstance(targets, str):
        return
    strays = [entry for entry in targets if not any(under(name, [entry]) for name in candidates)]
    if strays:
        raise ValueError(
            f"{setting}={list(targets)}: {', '.join(strays)} matches no module with {what}; the model has "
            f"{sorted({name.rpartition('.')[2] for name in candidates})}"
        )


def is_linear(module: nn.Module) -> bool:
    """Linear layers of any kind, including quantized ones and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear | Conv1D) or hasattr(module, "in_features")


def is_norm(module: nn.Module) -> bool:
    """Layer and RMS norms, by class name, because transformers defines one class per architecture."""
    name = type(module).__name__
    return isinstance(module, nn.LayerNorm) or "LayerNorm" in name or name.endswith("Norm")


def decayed_names(model: nn.Module) -> list[str]:
    """Names of the parameters that weight decay applies to: all but biases and whatever belongs to a norm.

    transformers tells norms by their names, which miss GPT-2's ``ln_1`` inside a tuner layer, and by one class. Copies
    of a norm and differences to it are of the norm.
    """
    from transformers import Trainer

    spared = set[str]()
    for name, module in model.named_modules():
        base: Any = module
        if isinstance(module, BaseTunerLayer):
            base = module.get_base_layer()
        elif isinstance(module, AuxiliaryTrainingWrapper):
            base = module.original_module
        if is_norm(base):
            spared |= {f"{name}.{inner}" for inner, _ in module.named_parameters()}
    names: list[str] = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    return [name for name in names if name not in spared]


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer that computes logits, unwrapped; None for models without one."""
    getter = getattr(model, "get_output_embeddings", None)
    head: Any = getter() if getter else None
    return head.get_base_layer() if isinstance(head, BaseTunerLayer) else head


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer except the output head, by name."""
    head = output_head(model)
    return {name: module for name, module in holders(model) if is_linear(module) and module is not head}


def text_config(model: nn.Module) -> Any:
    """The part of the model's configuration that describes its language model."""
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def block_names(model: nn.Module) -> list[str]:
    """Names of the transformer blocks, first to last; those of the decoder if there is an encoder too.

    Raises ``ValueError`` if the blocks cannot be identified.
    """
    config = text_config(model)
    depth = next(
        getattr(config, key)
        for key in ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
        if getattr(config, key, None) is not None
    )
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and not re.search(r"\.\d+\.", f"{name}.")
    ]
    if len(stacks) > 1:
        stacks = [name for name in stacks if re.search(r"decoder|language_model|text", name)]
    if len(stacks) != 1:
        raise ValueError(
            f"cannot identify the transformer blocks of {type(model).__name__} ({depth} layers): candidates "
            f"{stacks or 'none'}; name the modules instead of counting layers"
        )
    return [f"{stacks[0]}.{index}" for index in range(depth)]


def refuse_tied(model: nn.Module, names: Collection[str], setting: str) -> None:
    """Raise ``ValueError`` if a parameter of the named modules is used by another module too.

    A copy or difference per module would change one use and not the other, so the result would be neither the tied
    nor an untied model.
    """
    uses: dict[int, set[str]] = defaultdict(set)
    for name, module in holders(model, twice=True):
        for parameter in module._parameters.values():
            if parameter is not None:
                uses[id(parameter)].add(name)
    for shared in uses.values():
        if len(shared) > 1 and not shared.isdisjoint(names):
            raise ValueError(
                f"{setting} selects {sorted(shared & set(names))}, whose weight is tied to "
                f"{sorted(shared - set(names)) or 'each other'}; leave the tied modules out, or load the "
                "base model untied (tie_word_embeddings=false)"
            )


def refuse_nested(names: Collection[str], setting: str) -> None:
    """Raise ``ValueError`` if one of the modules is inside another, because not both can be wrapped.

    Names inside a wrapper differ from the base model's, so what was saved could not be loaded.
    """
    chosen = set(names)
    for name in sorted(names):
        parts = name.split(".")
        for end in range(1, len(parts)):
            if (parent := ".".join(parts[:end])) in chosen:
                raise ValueError(
                    f"{setting}: {name} is inside {parent}, which is adapted as a whole; name only one of the "
                    "two, and give adapters that share a base model the same placement"
                )


def refuse_integer(model: nn.Module, names: Collection[str], setting: str) -> None:
    """Raise ``ValueError`` if a selected module has weights that are not floating point (quantized)."""
    for name, module in holders(model):
        if name not in names:
            continue
        for key, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_floating_point():
                raise ValueError(
                    f"{setting} selects {name}, whose {key} is {parameter.dtype} (quantized) and cannot be "
                    "trained; load the base model unquantized or choose another method"
                )
