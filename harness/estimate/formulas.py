"""Trained parameters by formula, for types that compute with the base's numbers, or for minutes, while they are built.

FRoD and AdaMSS decompose the base weights; FourierFT and WaveFT draw a permutation of each whole matrix; BOFT
fills a square matrix per layer. Tests hold each formula to real models.
"""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.adapters import block_sizes
from harness.errors import ModelFault

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAR_ONLY = ("ADAMSS", "BOFT")  # the others take GPT-2's Conv1D too


Layer = tuple[str, int, int]  # name, input and output dimension


def trained(config: Any, model: "PreTrainedModel") -> int:
    """Parameters that the configuration trains on this model, those of ``modules_to_save`` among them.

    Raises:
        ModelFault: nothing is targeted.
    """
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    saved = tuple(config.modules_to_save or ())
    found = block_sizes.targeted_layers(config, model)
    layers = (
        [(name, *found[name]) for name in found if not name.endswith(saved)]
        if saved
        else [(name, *sizes) for name, sizes in found.items()]
    )
    if not layers:
        raise ModelFault(f"{kind}: no layer of this model matches target_modules={config.target_modules}")
    if kind in LINEAR_ONLY:
        for name, _, _ in layers:
            if "Linear" not in type(model.get_submodule(name)).__name__:
                raise ModelFault(
                    f"{kind} adapts linear layers only, not {name}, a {type(model.get_submodule(name)).__name__}"
                )
    copies = [module for name, module in model.named_modules() if saved and name.endswith(saved)]
    own = sum(parameter.numel() for copy in copies for parameter in copy.parameters())
    return TRAINED[kind](config, model, layers) + own + _biases(config, model, [name for name, _, _ in layers], saved)


def _biases(config: Any, model: "PreTrainedModel", layers: list[str], saved: tuple[str, ...]) -> int:
    """Biases that the configuration trains beside its own weights: all of the model, or those of its layers."""
    kind = getattr(config, "bias", "none")
    if kind == "none":
        return 0
    owners = (
        [(name, module) for name, module in model.named_modules() if not (saved and name.endswith(saved))]
        if kind == "all"
        else [(name, model.get_submodule(name)) for name in layers]
    )
    biases: list[Any] = [getattr(module, "bias", None) for _, module in owners]
    return sum(bias.numel() for bias in biases if hasattr(bias, "requires_grad"))


def bare(kind: str, settings: Mapping[str, Any]) -> Any:
    """The settings alone, for a type whose configuration class cannot be made here (AdaMSS wants scikit-learn)."""
    from harness.methods import library

    values = library.library_defaults(kind.lower()) | dict(settings)
    return SimpleNamespace(peft_type=kind.upper(), **values)


def _frod(config: Any, model: "PreTrainedModel", layers: list[Layer]) -> int:
    """Per layer one scale per input, and sparse entries off the diagonal of a square of that size."""
    total = 0
    for _, inputs, _ in layers:
        entries = min(int(inputs * inputs * config.sparse_rate), inputs * (inputs - 1))
        total += inputs + (max(1, entries) if config.sparse_rate > 0 and inputs > 1 else entries)
    return total


def _adamss(config: Any, model: "PreTrainedModel", layers: list[Layer]) -> int:
    """K clusters of output rows; each trains (rank, r) and (rows, rank).

    Exact if no cluster has fewer rows than ``subspace_rank``, which holds at its default of 1.
    """
    if config.use_dynamic_rank:
        raise ModelFault("adamss.use_dynamic_rank=true finds its ranks in the weights; they cannot be counted before")
    rank, total = config.subspace_rank, 0
    for name, inputs, outputs in layers:
        biased: Any = model.get_submodule(name)
        width = min(config.r, outputs, inputs + (biased.bias is not None))
        total += rank * (min(config.num_subspaces, outputs) * width + outputs)
    return total


def _frequencies(config: Any, model: "PreTrainedModel", layers: list[Layer]) -> int:
    """So many coefficients per layer; WaveFT may share their sum out by the layers' sizes."""
    if getattr(config, "proportional_parameters", False):
        weights = sum(inputs * outputs for _, inputs, outputs in layers)
        budget = config.n_frequency * len(layers)
        return sum(max(1, round(inputs * outputs / weights * budget)) for _, inputs, outputs in layers)
    total = 0
    for name, _, _ in layers:
        own = [key for key in config.n_frequency_pattern if re.fullmatch(rf"(.*\.)?{key}", name)]
        total += config.n_frequency_pattern[own[0]] if own else config.n_frequency
    return total


def _boft(config: Any, model: "PreTrainedModel", layers: list[Layer]) -> int:
    """Per layer and factor a square of the block's size for each block, and one scale per output."""
    total = 0
    for _, inputs, outputs in layers:
        size = config.boft_block_size or inputs // config.boft_block_num
        total += config.boft_n_butterfly_factor * inputs * size + outputs
    return total


TRAINED: dict[str, Callable[[Any, "PreTrainedModel", list[Layer]], int]] = {
    "FROD": _frod,
    "ADAMSS": _adamss,
    "FOURIERFT": _frequencies,
    "WAVEFT": _frequencies,
    "BOFT": _boft,
}
