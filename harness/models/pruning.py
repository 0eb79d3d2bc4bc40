"""Magnitude pruning of a base before it is tuned: a share of its linear weights is set to zero, once."""

from typing import TYPE_CHECKING, Any

from harness.errors import ModelFault

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def prune_weights(net: "PreTrainedModel", share: float) -> float:
    """Set the weights with the smallest absolute values, over all linear layers together, to zero.

    The output head is left out, because it may be tied to the embedding. The weights stay dense:
    pruning saves no memory here.

    Args:
        share: of the linear weights, at least 0 and below 1.

    Returns:
        The share that is zero afterwards, including weights that were zero before.

    Raises:
        ModelFault: the weights are quantized, or there is no linear layer.
    """
    import torch
    from torch.nn.utils import prune as pruning

    if getattr(net, "is_quantized", False):
        raise ModelFault(
            f"model.prune={share} needs unquantized base weights, and this checkpoint is quantized; set model.prune=0"
        )
    layers = linear_layers(net)
    if not layers:
        raise ModelFault(f"model.prune={share}: this model has no linear layers; set model.prune=0")
    with torch.no_grad():
        pruning.global_unstructured(
            [(layer, "weight") for layer in layers], pruning_method=pruning.L1Unstructured, amount=share
        )
        for layer in layers:
            pruning.remove(layer, "weight")
    return zero_share(net)


def zero_share(net: "PreTrainedModel") -> float:
    """Share of zeros among the weights of the linear layers except the output head, 0 to 1."""
    import torch

    layers: list[Any] = linear_layers(net)
    weights: list[torch.Tensor] = [layer.weight for layer in layers]
    zeros = sum(weight.numel() - int(torch.count_nonzero(weight)) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def linear_layers(net: "PreTrainedModel") -> "list[nn.Module]":
    """The linear layers except the output head, including GPT-2's Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = net.get_output_embeddings()
    return [module for module in net.modules() if isinstance(module, nn.Linear | Conv1D) and module is not head]
