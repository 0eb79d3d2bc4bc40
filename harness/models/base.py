"""Base models: loaded once, frozen, and forked for each run without copying their weights.

``load_base`` reads the weights. ``fork`` gives a run its own module tree over the same storage, so that nothing that
PEFT injects stays behind. ``fingerprint_weights`` proves that the storage is still bit-equal afterwards.
"""

import copy
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from harness.config.schema import Model, Quantization
from harness.errors import ModelFault
from harness.models import pruning, quantization
from harness.models import sources as model_sources
from harness.models.device import pick_device, pick_dtype
from harness.models.tokenizer import load_tokenizer
from harness.runtime.notices import without_progress_bars


@dataclass
class Base:
    """A loaded base model, frozen and in eval mode; all runs of a process that use it share it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device  # of the first layer
    dtype: torch.dtype
    notes: tuple[str, ...]  # inferred settings and fallbacks, for the record
    seconds: float  # to locate and load
    pruned_share: float | None = None  # zeros among the linear weights, 0 to 1; None without model.prune


def load_base(model: Model) -> Base:
    """Locate, load and freeze a base model. Raises ``ModelFault`` if it cannot be found, loaded or placed."""
    started = time.perf_counter()
    device = pick_device(model)
    dtype = pick_dtype(model.dtype, device)
    located = model_sources.locate_weights(model)
    tokenizer, pad_note = load_tokenizer(located.folder, model.trust_remote_code)
    net = _read_weights(model, located.folder, device, dtype)
    refuse_offloaded(net, model)
    notes = [located.note, pad_note, *quantization.prepare_for_training(net, model)]
    share = pruning.prune_weights(net, model.prune) if model.prune else None
    net.requires_grad_(False)
    net.eval()
    _pass_contiguous_rows_to_head(net)
    if device.type == "cuda":
        # cuDNN plans each new shape anew: 2.6 ms a call on an H200, and batches of text seldom repeat a shape.
        torch.backends.cuda.enable_cudnn_sdp(False)
    seconds = time.perf_counter() - started
    return Base(net, tokenizer, net.device, dtype, tuple(note for note in notes if note), seconds, share)


def _read_weights(model: Model, folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The network on its device. Raises ``ModelFault`` unless every weight comes from the files."""
    settings: dict[str, Any] = {"dtype": dtype, "device_map": model.device_map or {"": str(device)}}
    settings |= _quantization_config(model, folder, dtype)
    if model.attn_implementation:
        settings["attn_implementation"] = model.attn_implementation
    try:
        with without_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                **settings,
            )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelFault(
            f"model={model.name}: transformers cannot load {folder} with model.dtype={model.dtype.value}, "
            f"model.device_map={model.device_map}, model.attn_implementation={model.attn_implementation} "
            f"({type(error).__name__}: {error})"
        ) from error
    net, loading = loaded
    absent = loading["missing_keys"] or loading["mismatched_keys"]
    if absent:
        # transformers fills these with random numbers and only warns.
        raise ModelFault(
            f"model={model.name}: {folder} lacks weights that the architecture needs: "
            f"{sorted(map(str, absent))[:5]}; give a complete checkpoint in model.path"
        )
    return net


def _pass_contiguous_rows_to_head(net: PreTrainedModel) -> None:
    """Copy the hidden states before the output head, which get there as a slice of the needed positions.

    A slice takes the batched path of the matrix product, which copies the head's weights once per row of the batch:
    SmolLM2-135M trains 1.4 times as fast in bfloat16 on a CPU without that.
    """
    head = net.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(), *args[1:]) if args else args


def refuse_offloaded(net: torch.nn.Module, model: Model) -> None:
    """Raise ``ModelFault`` if ``device_map`` left weights outside the GPUs: nothing trains there."""
    offloaded = [name for name, parameter in net.named_parameters() if parameter.is_meta]
    if offloaded:
        raise ModelFault(
            f"model.device_map={model.device_map}: {len(offloaded)} weights do not fit on the GPUs (first "
            f"{offloaded[0]}), and training needs them there; use more or larger GPUs, "
            "model.quantization=nf4, or a smaller model"
        )


def _quantization_config(model: Model, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments that quantize while loading. Raises ``ModelFault`` without bitsandbytes or for quantized files."""
    quantization.require_bitsandbytes(model.quantization)
    if model.quantization is not Quantization.none:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=model.trust_remote_code)
        quantization.refuse_twice(getattr(config, "quantization_config", None), model)
    return quantization.loading_arguments(model.quantization, dtype)


def fork(base: Base, private_weights: bool) -> PreTrainedModel:
    """A new module tree over the base's weights; whatever is injected into it leaves the base unchanged.

    Its parameters are new objects, frozen, over the same storage; tied weights stay tied. The statistics of quantized
    parameters are shared with them.

    Args:
        private_weights: copy the storage as well, for methods that write to base weights.
    """
    memo: dict[int, Any] = {} if private_weights else quantization.shared_parameters(base.model)
    for parameter in base.model.parameters():
        if type(parameter) is nn.Parameter:
            data = parameter.data.clone() if private_weights else parameter.data
            memo[id(parameter)] = nn.Parameter(data, requires_grad=False)
        elif not private_weights:
            memo.setdefault(id(parameter), parameter)
    return copy.deepcopy(base.model, memo)


def fingerprint_weights(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters (0.7 s per GB on one CPU core).

    Includes the scales of quantized weights.
    """
    result = hashlib.sha256()
    parameters = ((name, quantization.plain(parameter)) for name, parameter in model.named_parameters())
    for name, tensor in (*parameters, *quantization.scales(model)):
        data = tensor.detach().cpu().contiguous()
        result.update(f"{name} {tuple(data.shape)} {data.dtype}\n".encode())
        result.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
