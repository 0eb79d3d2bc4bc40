"""Names of modules in a method's settings: each must match something in the model.

PEFT takes a list in which one entry matches, and silently drops the others: fewer parameters train than the command
says. Here every entry of a list, every key of a pattern and every layer number is checked, on the skeleton of the model
before anything is loaded and again when the method is attached.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.adapters.block_sizes import targeted_layers
from harness.config.names import closest
from harness.errors import ModelFault, brief, raise_together

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

ENDING_AS_TEXT = ("ADAPTION_PROMPT",)  # types that read a single text as the end of a name
PATTERNS = ("rank_pattern", "alpha_pattern", "n_frequency_pattern", "block_size_pattern")
# What IA3 scales, by the names that architectures give it; the MLP's is scaled at its input.
KEYS_AND_VALUES = re.compile(r"[kv](_proj|_lin)?|key|value|W?qkv(_proj)?|query_key_value|c_attn|in_proj|kv_proj")
OUT_OF_MLP = re.compile(r"down_proj|fc2|fc_out|dense_4h_to_h|c_proj|w2|wo|lin2|output_linear")
SHOWN = 12  # names that a message lists if none is close


def refuse_strange_names(config: "PeftConfig", settings: Mapping[str, Any], model: "nn.Module", prefix: str) -> None:
    """Check all names of modules in these settings.

    Args:
        config: PEFT's configuration that was made of them.
        settings: the sheet, or ``library.settings``.
        prefix: of the keys in messages, e.g. ``lora``.

    Raises:
        ModelFault: some name matches nothing; lists each, with the names that it may mean.
    """
    names = _Names(config, model, prefix)
    faults = [
        fault for key, check in _CHECKS.items() if settings.get(key) for fault in check(names, key, settings[key])
    ]
    raise_together(list(dict.fromkeys(faults)), ModelFault)


@dataclass(frozen=True)
class _Names:
    """The names of one model, and where a method looks for them."""

    config: Any
    model: "nn.Module"
    prefix: str

    @cached_property
    def modules(self) -> list[str]:
        return [name for name, _ in self.model.named_modules() if name]

    @cached_property
    def layers(self) -> list[str]:
        """Modules with parameters of their own."""
        return [name for name, module in self.model.named_modules() if name and module._parameters]

    @cached_property
    def targeted(self) -> list[str]:
        """Names of the linear layers that the method adapts."""
        return list(targeted_layers(self.config, self.model))

    @cached_property
    def parameters(self) -> list[str]:
        return [name for name, _ in self.model.named_parameters()]

    def unmatched(
        self, key: str, value: Any, known: Collection[str], matches: Callable[[str, str], bool], what: str
    ) -> Iterator[str]:
        """Faults of the entries that match none of ``known``."""
        listed = isinstance(value, list | tuple | set)
        for entry in value if listed else [value]:
            if not any(matches(entry, name) for name in known):
                shown = f"[{','.join(map(str, value))}]" if listed else value
                yield (
                    f"{self.prefix}.{key}={brief(str(shown))}: {entry} matches no {what} of this model; "
                    f"{near(str(entry), known if what != 'module' else [*self.layers, *known])}"
                )


def no_default(config: Any, model: "nn.Module", prefix: str) -> str:
    """What to set where PEFT knows no target modules for this architecture."""
    model_type, head = getattr(model.config, "model_type", "unknown"), model.get_output_embeddings()  # type: ignore[operator]
    if _kind(config) == "LN_TUNING":
        named = (name for name, module in model.named_modules() if is_norm(module))
        kind, wanted = "norms", sorted({name.rpartition(".")[2] for name in named})
        words = f"{prefix}.target_modules=[{','.join(wanted)}]"
    else:
        named = (name for name, module in model.named_modules() if is_linear(module) and module is not head)
        kind, wanted = "linear layers", sorted({name.rpartition(".")[2] for name in named})
        words = f"{prefix}.target_modules=[{','.join(wanted)}]"
        inner = [name for name in wanted if KEYS_AND_VALUES.fullmatch(name)]
        outer = [name for name in wanted if OUT_OF_MLP.fullmatch(name)]
        if _kind(config) == "IA3":
            chosen = [*inner, *outer] if inner and outer else wanted
            words = f"{prefix}.target_modules=[{','.join(chosen)}] {prefix}.feedforward_modules=[{','.join(outer)}]"
    return (
        f"has no default target modules for model_type={model_type}; set {words} (this model's {kind} end in "
        f"{', '.join(wanted)})"
    )


def is_linear(module: Any) -> bool:
    """Linear layers of any kind, including quantized ones and GPT-2's Conv1D."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Linear | Conv1D) or hasattr(module, "in_features")


def is_norm(module: Any) -> bool:
    """Layer and RMS norms, by the name of their class."""
    name = type(module).__name__
    return "LayerNorm" in name or name.endswith("Norm")


def near(entry: str, known: Collection[str]) -> str:
    """``did you mean v_proj?``, or the names that there are."""
    depths = {entry.count(".") + 1, entry.count(".") + 2} if "." in entry else {1}
    endings = sorted({".".join(name.split(".")[-depth:]) for name in known for depth in depths})
    alike = [name for name in endings if name.rpartition(".")[2] == entry.rpartition(".")[2]]
    if close := closest(entry, alike, 0.6) or closest(entry, endings, 0.6):
        return f"did you mean {' or '.join(close)}?"
    last = dict.fromkeys(name.rpartition(".")[2] for name in known)
    words = [name for name in last if name and not name.isdigit()]
    return f"choose among {', '.join(words[:SHOWN])}" + (", ..." if len(words) > SHOWN else "")


def _kind(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


# --- what matches ------------------------------------------------------------------------------------------


def _ends(entry: str, name: str) -> bool:
    return name == entry or name.endswith(f".{entry}")


def _whole(entry: str, name: str) -> bool:
    return re.fullmatch(entry, name) is not None


def _key_of_pattern(entry: str, name: str) -> bool:
    """As PEFT reads the key of a pattern."""
    return re.match(rf"(.*\.)?({entry})$", name) is not None


# --- one check for each kind of setting --------------------------------------------------------------------


def _modules(names: _Names, key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield from names.unmatched(key, value, names.modules, _ends, "module")
        return
    kind = _kind(names.config)
    if value == "all-linear" or (value == "all" and kind == "DIFF_PRUNING"):
        return
    if any(_ends(value, name) for name in names.modules):
        if kind not in ENDING_AS_TEXT and not any(_whole(value, name) for name in names.modules):
            yield (
                f"{names.prefix}.{key}={value} is one text, which is a regular expression over whole names and matches "
                f"none; for names that end in {value} write a list: {names.prefix}.{key}=[{value}]"
            )
        return
    yield from names.unmatched(key, value, names.modules, _whole, "module")


def _excluded(names: _Names, key: str, value: Any) -> Iterator[str]:
    """PEFT leaves out a layer by its own name, not by that of a module around it."""
    yield from names.unmatched(key, value, names.layers, _whole if isinstance(value, str) else _ends, "layer")


def _within_targets(names: _Names, key: str, value: Any) -> Iterator[str]:
    """IA3 scales the inputs of these instead of their outputs, if it adapts them at all."""
    matches = _whole if isinstance(value, str) else _ends
    yield from names.unmatched(key, value, names.targeted, matches, "targeted layer")


def _saved(names: _Names, key: str, value: Any) -> Iterator[str]:
    # PEFT compares ends of names without regard to dots; a name that only ends alike would train by accident.
    yield from names.unmatched(key, value, names.modules, _ends, "module")


def _pattern(names: _Names, key: str, value: Any) -> Iterator[str]:
    for entry in value:
        if not any(_key_of_pattern(entry, name) for name in names.targeted):
            yield (
                f"{names.prefix}.{key}.{entry} matches no targeted layer of this model; {near(entry, names.targeted)}"
            )


def _layers(names: _Names, key: str, value: Any) -> Iterator[str]:
    layers = names.model.config.get_text_config(decoder=True).num_hidden_layers  # type: ignore[union-attr,operator]
    listed = value if isinstance(value, list | tuple) else [value]
    beyond = [layer for layer in listed if not 0 <= layer < layers]
    if beyond:
        shown = ",".join(map(str, listed))
        yield (
            f"{names.prefix}.{key}=[{shown}]: this model has no layer {', '.join(map(str, beyond))}; its "
            f"layers are 0 to {layers - 1}"
        )


def _parameters(names: _Names, key: str, value: Any) -> Iterator[str]:
    yield from names.unmatched(key, value, names.parameters, _ends, "parameter")


def _segments(names: _Names, key: str, value: Any) -> Iterator[str]:
    """PEFT finds the number of a layer behind this part of its name."""
    yield from names.unmatched(key, value, names.modules, lambda entry, name: entry in name.split("."), "module list")


def _tokens(names: _Names, key: str, value: Any) -> Iterator[str]:
    rows = names.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    beyond = [token for token in value if not 0 <= token < rows] if isinstance(value, list) else []
    if beyond:
        yield (
            f"{names.prefix}.{key}: token {beyond[0]} is outside the model's vocabulary; its tokens are 0 to {rows - 1}"
        )


_CHECKS: dict[str, Callable[[_Names, str, Any], Iterator[str]]] = {
    **dict.fromkeys(("target_modules", "modules"), _modules),
    "exclude_modules": _excluded,
    "feedforward_modules": _within_targets,
    "modules_to_save": _saved,
    **dict.fromkeys(PATTERNS, _pattern),
    "layers_to_transform": _layers,
    "layers_pattern": _segments,
    "target_parameters": _parameters,
    **dict.fromkeys(("token_indices", "trainable_token_indices", "cpt_token_ids"), _tokens),
}
