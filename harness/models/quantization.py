"""Base weights in 4 or 8 bits by bitsandbytes: how they are loaded, shared by forks, hashed and measured.

nf4 is QLoRA's storage (Dettmers et al. 2023, arXiv:2305.14314, sec. 3): 4-bit NormalFloat with double quantization,
computed in the precision of ``model.dtype``. int8 is LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339): 8-bit rows,
with input columns beyond 6.0 kept in 16 bits. Embeddings, norms and the output head are not quantized.
"""

import copy
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.config.schema import Model, Quantization
from harness.errors import ModelFault

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

INT8_NOTE = "model.quantization=int8: linear layers round their inputs to float16 and compute in 8 bits (LLM.int8())"


def require_bitsandbytes(kind: Quantization, key: str = "model.quantization") -> None:
    """Raise ``ModelFault`` if bitsandbytes is needed and not installed; ``key`` is the setting that needs it."""
    if kind is not Quantization.none and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelFault(
            f"{key}={kind.value} needs bitsandbytes, which is not installed; pip install 'peft-harness[quant]', "
            f"or set {key}=none"
        )


def loading_arguments(kind: Quantization, dtype: "torch.dtype") -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that quantize while loading; empty for ``none``."""
    if kind is Quantization.none:
        return {}
    from transformers import BitsAndBytesConfig

    if kind is Quantization.int8:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": nf4}


def dequantized(net: "PreTrainedModel", dtype: "torch.dtype") -> "PreTrainedModel":
    """The network with plain weights, for merging; it no longer says that it is quantized, which PEFT goes by."""
    plain: Any = net.dequantize(dtype=dtype)
    for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(plain, name):
            setattr(plain, name, False)
    return plain


def kind(net: "nn.Module") -> Quantization:
    """How the network's linear layers are stored; every quantizer except LLM.int8() packs them and counts as nf4."""
    if not getattr(net, "is_quantized", False):
        return Quantization.none
    return Quantization.int8 if getattr(net, "is_loaded_in_8bit", False) else Quantization.nf4


def prepare_for_training(net: "PreTrainedModel", model: Model) -> list[str]:
    """Prepare a quantized network for training adapters on it; return notes for the record.

    Norms, embeddings and output head become float32, and biases of 4-bit layers take the type that the layer computes
    in: here, once, so that baseline, training and scoring use the same model. Other networks are left unchanged.
    """
    if not getattr(net, "is_quantized", False):
        return []
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(net, use_gradient_checkpointing=False)
    layers: Iterator[Any] = net.modules()
    for module in layers:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack the shared weights in place at the first call in eval mode, and then not train.
            module.support_avx512bf16_for_cpu = False
            if module.bias is not None and module.compute_dtype is not None:
                # bitsandbytes would do this itself at the first call, in the shared bias.
                module.bias.data = module.bias.data.to(module.compute_dtype)
    notes = [INT8_NOTE] if getattr(net, "is_loaded_in_8bit", False) else []
    if model.quantization is Quantization.none:
        notes.append("the checkpoint of the base is quantized")
    return notes


def refuse_twice(stored: Any, model: Model) -> None:
    """Raise ``ModelFault`` if a checkpoint would be quantized again; ``stored`` is its own quantization config."""
    if stored is not None and model.quantization is not Quantization.none:
        raise ModelFault(
            f"model={model.name} is a quantized checkpoint, which model.quantization={model.quantization.value} cannot "
            "quantize again; set model.quantization=none"
        )


def shared_parameters(net: "nn.Module") -> dict[int, Any]:
    """A memo for ``copy.deepcopy`` that makes it share the quantized parameters of ``net`` and their statistics.

    Each parameter becomes a new object over the same bytes, because bitsandbytes' layers assign to their parameters'
    ``data`` and move statistics from the parameter to the layer at their first call.
    """
    memo: dict[int, Any] = {}
    parameters: Iterator[Any] = net.parameters()
    for parameter in parameters:
        if type(parameter).__name__ == "Params4bit":
            memo[id(parameter)] = copy.copy(parameter)
        elif type(parameter).__name__ == "Int8Params":
            kind: Any = type(parameter)
            memo[id(parameter)] = kind(
                plain(parameter),
                requires_grad=False,
                has_fp16_weights=parameter.has_fp16_weights,
                CB=parameter.CB,
                SCB=parameter.SCB,
            )
    for holder in _statistics(net):
        memo[id(holder)] = holder
    return memo


def stored(net: "nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Every tensor of the network, by name: parameters, buffers, and the scales of quantized weights."""
    for name, parameter in net.named_parameters():
        yield name, plain(parameter)
    for name, buffer in net.named_buffers():
        yield name, buffer
    yield from scales(net)


def scales(net: "nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    """The scales of quantized weights, by name."""
    for name, module in net.named_modules():
        for key, tensor in _scales(module):
            yield f"{name}.{key}", tensor


def storage_bytes(net: "nn.Module") -> int:
    """Bytes of memory in parameters, buffers and scales; shared storage counts once."""
    sizes = {}
    for _, tensor in stored(net):
        storage = tensor.untyped_storage()
        sizes[storage.device, storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def plain(parameter: "torch.Tensor") -> "torch.Tensor":
    """The bytes as an ordinary tensor: ``detach`` and ``cpu`` of bitsandbytes' own types move their statistics."""
    import torch

    return parameter.data.as_subclass(torch.Tensor)


def _statistics(net: "nn.Module") -> Iterator[Any]:
    """Objects outside the parameters that hold scales and must not be copied."""
    for module in net.modules():
        weight = getattr(module, "weight", None)
        state = getattr(weight, "quant_state", None)
        if state is not None:
            yield state
        for tensor in (getattr(getattr(module, "state", None), name, None) for name in ("CB", "SCB")):
            if tensor is not None:
                yield tensor


def _scales(module: "nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    weight: Any = module._parameters.get("weight")
    if type(weight).__name__ == "Params4bit" and weight.quant_state is not None:
        state = weight.quant_state
        yield "absmax", state.absmax
        if state.nested:
            yield "offset", state.offset
            yield "absmax2", state.state2.absmax
    elif type(weight).__name__ == "Int8Params":
        held: Any = module
        rows = weight.SCB if weight.SCB is not None else held.state.SCB  # the first call moves it to the layer
        if rows is not None:
            yield "SCB", rows
