"""Base models: loaded once, frozen, and forked for each run without copying their weights.

``load_base`` reads the weights; ``fork`` gives a run its own module tree over the same storage, so that
nothing that PEFT injects stays behind; ``fingerprint_weights`` proves that the storage is bit-exact
afterwards; ``load_config`` and ``skeleton`` count without weights, on the meta device.
"""

import copy
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness import parallel, pruned, quantized, weights
from harness.converted import no_progress_bars
from harness.errors import ModelFault
from harness.schema import DType, Model, Quantization

# Tokens made for padding, or unused: Llama 3; Qwen, SmolLM2 and GPT-2; Gemma; BERT-like; Llama 2.
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", "[PAD]", "<unk>")


@dataclass
class Base:
    """A loaded base model: frozen, in eval mode; shared by all runs of a process that use it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device  # of the first layer
    dtype: torch.dtype
    notes: tuple[str, ...]  # inferred settings and fallbacks, for the record
    seconds: float  # to locate and load
    pruned_share: float | None = None  # zeros among the linear weights, where model.prune asked for them


def load_base(model: Model) -> Base:
    """Locate, read and freeze a base model. Raises ``ModelFault``."""
    started = time.perf_counter()
    device = pick_device(model)
    dtype = pick_dtype(model.dtype, device)
    located = weights.locate(model)
    tokenizer, pad_note = load_tokenizer(located.folder, model.trust_remote_code)
    net = _read(model, located.folder, device, dtype)
    _refuse_offloaded(net, model)
    notes = [located.note, pad_note, *quantized.settle(net, model)]
    share = pruned.prune(net, model.prune) if model.prune else None
    net.requires_grad_(False)
    net.eval()
    seconds = time.perf_counter() - started
    return Base(net, tokenizer, net.device, dtype, tuple(note for note in notes if note), seconds, share)


def _read(model: Model, folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The network on its device; every weight must come from the files."""
    settings: dict[str, Any] = {"dtype": dtype, "device_map": model.device_map or {"": str(device)}}
    settings |= _quantising(model, folder, dtype)
    if model.attn_implementation:
        settings["attn_implementation"] = model.attn_implementation
    try:
        with no_progress_bars():
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
    faults = {key: loading[key] for key in ("missing_keys", "mismatched_keys") if loading[key]}
    if faults:
        # transformers fills these with random numbers and only warns.
        raise ModelFault(
            f"model={model.name}: {folder} lacks weights that the architecture needs: "
            f"{sorted(map(str, next(iter(faults.values()))))[:5]}; give a complete checkpoint in model.path"
        )
    return net


def _refuse_offloaded(net: torch.nn.Module, model: Model) -> None:
    """Raise ModelFault where ``device_map`` left weights outside of the GPUs: nothing trains there."""
    away = [name for name, parameter in net.named_parameters() if parameter.is_meta]
    if away:
        raise ModelFault(
            f"model.device_map={model.device_map}: {len(away)} weights do not fit the GPUs (first {away[0]}), and "
            "training needs them there; use more or larger GPUs, model.quantization=nf4, or a smaller model"
        )


def _quantising(model: Model, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments that quantise while loading. Raises ``ModelFault``: no bitsandbytes, or the files are quantised."""
    quantized.require(model.quantization)
    if model.quantization is not Quantization.none:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=model.trust_remote_code)
        quantized.refuse_twice(getattr(config, "quantization_config", None), model)
    return quantized.loading(model.quantization, dtype)


def pick_device(model: Model) -> torch.device:
    """The device that ``model.device`` names; auto: a GPU, else the CPU. Refuses an absent device."""
    if model.device_map is not None and model.device != "auto":
        raise ModelFault(
            f"model.device={model.device} and model.device_map={model.device_map} contradict each other; "
            "set model.device=auto, or model.device_map=null"
        )
    if model.device == "auto":
        return torch.device(f"cuda:{parallel.local_rank()}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(model.device)
    except RuntimeError as error:
        raise ModelFault(f"model.device={model.device} is no device; use auto, cpu, cuda or cuda:1") from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= present.get(device.type, 0):
        found = ", ".join(f"{count} {kind}" for kind, count in present.items() if count)
        raise ModelFault(f"model.device={model.device} is not on this machine (found: {found}); set model.device=auto")
    return device


def pick_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """Torch's type for the setting; auto: float32 on CPU, bfloat16 where the GPU has it, else float16."""
    if dtype is not DType.auto:
        return getattr(torch, dtype.value)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32


def load_tokenizer(folder: Path, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, str | None]:
    """Tokenizer with a padding token, and what was chosen for it where the model names no usable one.

    A padding token that is also the end of text is replaced where the vocabulary has another candidate: code
    that masks padding by its id would mask the end too. The vocabulary never grows.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelFault(
            f"{folder} holds no tokenizer that transformers can read ({type(error).__name__}: {error}); "
            "save one beside the weights with tokenizer.save_pretrained"
        ) from error
    if tokenizer.eos_token is None:
        raise ModelFault(
            f"the tokenizer in {folder} names no end-of-text token; set eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return tokenizer, None
    vocabulary = tokenizer.get_vocab()
    free = (token for token in PAD_CANDIDATES if token in vocabulary and token != tokenizer.eos_token)
    tokenizer.pad_token = next(free, tokenizer.eos_token)
    return tokenizer, f"padding token: {tokenizer.pad_token}"


def load_config(model: Model) -> PretrainedConfig:
    """Architecture of the base: from ``model.config_only`` where given, else beside the weights."""
    given = model.config_only
    if given is None:
        folder = weights.locate_config(model)
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    if not isinstance(given, dict):
        path = weights.find(str(given))
        path = path / "config.json" if path.is_dir() else path
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFault(f"model.config_only={model.config_only} cannot be read as JSON ({error})") from error
    try:
        return AutoConfig.for_model(**given)
    except (TypeError, ValueError) as error:
        raise ModelFault(
            f"model.config_only names no architecture of transformers ({error}); it needs model_type "
            "and the sizes of a config.json"
        ) from error


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device: shapes and tied weights, no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config))


def fork(base: Base, private_weights: bool) -> PreTrainedModel:
    """A fresh module tree over the base's weights; what is injected into it leaves the base as it was.

    Storage is shared and tied weights stay tied. ``private_weights`` clones the storage, for methods that
    write to base weights. Quantised parameters carry state beside their numbers, which is shared or copied with
    them.
    """
    memo: dict[int, Any] = {} if private_weights else quantized.shared_parameters(base.model)
    for parameter in base.model.parameters():
        if type(parameter) is nn.Parameter:
            data = parameter.data.clone() if private_weights else parameter.data
            memo[id(parameter)] = nn.Parameter(data, requires_grad=False)
        elif not private_weights:
            memo.setdefault(id(parameter), parameter)
    return copy.deepcopy(base.model, memo)


def fingerprint_weights(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters (0.7 s per GB on one CPU core).

    The scales of quantised weights count too.
    """
    result = hashlib.sha256()
    parameters = ((name, quantized.plain(parameter)) for name, parameter in model.named_parameters())
    for name, tensor in (*parameters, *quantized.scales(model)):
        data = tensor.detach().cpu().contiguous()
        result.update(f"{name} {tuple(data.shape)} {data.dtype}\n".encode())
        result.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
