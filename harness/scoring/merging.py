"""The tuned model as a plain one while it is scored: the adapter's change is in the weights, and its layers are aside.

Only for methods whose merged model gives the same greedy answers in float32, on a float32 base; a check of a few rows
on the model itself decides each time. Merged weights are new tensors: the base's storage, which other runs share, is
never written to, and afterwards each weight is the tensor that it was. While it lasts, the adapted weights are in
memory twice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# PEFT's names of the methods whose merged models answer as the unmerged ones: tests/scoring/test_merging.py. Missing
# are methods that change no base weight, `full`, whose weights are its own, `trainable_tokens`, whose embedding may be
# tied to the output head, and those of peft=library.
EXACT = (
    *("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "VERA", "RANDLORA", "VBLORA", "FOURIERFT", "MISS", "OFT", "BOFT"),
    *("HRA", "ROAD", "C3A", "SHIRA", "DIFF_PRUNING", "PARTIAL", "BITFIT", "LN_TUNING"),
)


def can_merge(model: Any) -> bool:
    """Whether the adapter can go into the weights: its method is exact there, and the base is plain and in float32."""
    if not hasattr(model, "peft_config") or len(model.peft_config) != 1:
        return False
    kind = model.peft_config[str(model.active_adapter)].peft_type
    if str(getattr(kind, "value", kind)).upper() not in EXACT:
        return False
    base = model.get_base_model()
    if getattr(base, "is_quantized", False) or base.config.dtype in (torch.float16, torch.bfloat16):
        return False
    weights = [weight for layer in _layers(model).values() for weight in _base_weights(layer)]
    owners = Counter(id(weight) for module in base.modules() for weight in module._parameters.values())
    return bool(weights) and all(
        type(weight) is nn.Parameter and weight.dtype is torch.float32 and owners[id(weight)] == 1 for weight in weights
    )


@contextmanager
def merged(model: Any) -> Iterator[Any]:
    """The base model with the adapter in its weights, without the adapter's layers; ``can_merge`` must be true.

    On exit, also after an exception, ``model`` is bit for bit what it was.
    """
    base, layers = model.get_base_model(), _layers(model)
    originals = [(weight, weight.data) for layer in layers.values() for weight in _base_weights(layer)]
    swapped: list[tuple[nn.Module, str, Any]] = []
    try:
        with torch.no_grad():
            for weight, data in originals:
                weight.data = data.clone()  # PEFT merges in place
            for name, layer in layers.items():
                layer.merge()
                parent, _, child = name.rpartition(".")
                owner = base.get_submodule(parent)
                swapped.append((owner, child, layer))
                setattr(owner, child, layer.get_base_layer())
        yield base
    finally:
        for owner, child, layer in swapped:
            setattr(owner, child, layer)
        try:
            with torch.no_grad():
                for layer in layers.values():
                    if layer.merged:  # what a layer keeps while it is merged goes, too
                        layer.unmerge()
        finally:
            for weight, data in originals:
                weight.data = data


def _layers(model: Any) -> dict[str, Any]:
    """The adapter's layers by their names in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    return {name: module for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)}


def _base_weights(layer: Any) -> Sequence[nn.Parameter]:
    """Weights and biases of the layer that is adapted."""
    return list(layer.get_base_layer().parameters())
