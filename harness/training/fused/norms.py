"""Root mean square norms in one operation of torch's (Zhang and Sennrich 2019, arXiv:1910.07467).

transformers writes them out in float32 operations, eight forward and about a dozen backward, each a kernel on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# Classes of transformers that multiply the normed input by their weight, and those that multiply by 1 + weight.
BY_WEIGHT = frozenset(f"{name}RMSNorm" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "SmolLM3", "Olmo2"))
BY_ONE_PLUS_WEIGHT = frozenset(f"{name}RMSNorm" for name in ("Gemma", "Gemma2", "Gemma3"))


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[int]:
    """Let the model's norms compute in one operation on a GPU; gives their number and restores them at the end."""
    fused = [module for module in model.modules() if _serves(module)]
    for norm in fused:
        norm.forward = _Forward(norm)
    try:
        yield len(fused)
    finally:
        for norm in fused:
            del norm.forward


def _serves(module: Any) -> bool:
    name = type(module).__name__
    if name not in BY_WEIGHT | BY_ONE_PLUS_WEIGHT or "forward" in vars(module) or module._forward_hooks:
        return False
    weight = module.weight
    return type(weight) is nn.Parameter and bool(weight.is_cuda)


class _Forward:
    """The forward pass of one norm."""

    def __init__(self, norm: Any) -> None:
        self._norm = norm
        self._eps = float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)
        self._plus_one = type(norm).__name__ in BY_ONE_PLUS_WEIGHT
        self._frozen = None if norm.weight.requires_grad else self._scale()

    def _scale(self) -> torch.Tensor:
        weight = self._norm.weight
        return 1.0 + weight.float() if self._plus_one else weight

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            scale = self._scale() if self._frozen is None else self._frozen
            if scale.dtype is hidden.dtype:
                return functional.rms_norm(hidden, scale.shape, scale, self._eps)
            return functional.rms_norm(hidden.float(), scale.shape, scale.float(), self._eps).to(hidden.dtype)
