"""Tiny random base models and one setting of every tuner, for tests/tuners/."""

from __future__ import annotations

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PretrainedConfig

from harness.tuners.adapter import AdapterConfig
from harness.tuners.bitfit import BitFitConfig
from harness.tuners.diff_layer import DiffPruningConfig
from harness.tuners.full import FullConfig
from harness.tuners.partial import PartialConfig

VOCAB = 61

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_NEOX = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}

# model_type -> changes to the defaults of its configuration; without dropout, so that losses are repeatable
SHAPES: dict[str, dict] = {
    "qwen2": {**_LLAMA, "tie_word_embeddings": True},
    "llama": {**_LLAMA, "tie_word_embeddings": False},
    "gemma3_text": {**_LLAMA, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {**_GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    **{
        name: {**_LLAMA, "pad_token_id": 0}
        for name in ("mistral", "qwen3", "gemma", "gemma2", "smollm3", "cohere", "olmo", "olmo2", "granite")
    },
    "stablelm": {**_LLAMA, "attention_dropout": 0.0},
    "phi3": {**_LLAMA, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0},
    "starcoder2": {**_LLAMA, "residual_dropout": 0.0, "embedding_dropout": 0.0},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "embed_dropout": 0.0,
    },
    "gptj": {**_GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": _NEOX,
    "phi": _NEOX,
    "opt": {**_NEOX, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bias": True},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    "mt5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
}

# One setting per method that works on all four main architectures.
SETTINGS: dict[str, tuple[type[PeftConfig], dict]] = {
    "adapter_houlsby": (AdapterConfig, {"bottleneck_size": 4, "train_layer_norms": True}),
    "adapter_pfeiffer": (
        AdapterConfig,
        {"bottleneck_size": 4, "placement": "pfeiffer", "adapter_layer_norm": True, "activation": "relu"},
    ),
    "adapter_parallel": (AdapterConfig, {"reduction_factor": 8, "placement": "parallel"}),
    "bitfit": (BitFitConfig, {"add_missing": True}),
    "diff_pruning": (DiffPruningConfig, {"target_sparsity": 0.1}),
    "partial_layers": (PartialConfig, {"last_layers": 1}),
    "partial_norms": (PartialConfig, {"norms": True}),
    "full": (FullConfig, {"keep_base": True}),
}
MAIN = ("qwen2", "llama", "gemma3_text", "gpt2")


def shape(model_type: str) -> PretrainedConfig:
    return AutoConfig.for_model(model_type, vocab_size=VOCAB, **SHAPES[model_type])


def base_model(model_type: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if model_type in ("t5", "mt5") else AutoModelForCausalLM
    model = kind.from_config(shape(model_type)).eval()
    for module in model.modules():  # transformers initializes biases to 0, which would hide errors
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            nn.init.normal_(bias, std=0.1)
    return model.to(dtype)


def setting(method: str, **changes: object) -> PeftConfig:
    config_cls, settings = SETTINGS[method]
    return config_cls(**{**settings, **changes})


def wrap(model_type: str, method: str, seed: int = 0, **changes: object) -> PeftModel:
    return get_peft_model(base_model(model_type, seed), setting(method, **changes)).eval()


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(1, VOCAB, (2, 9), generator=torch.Generator().manual_seed(seed))


def inputs(model: nn.Module) -> dict[str, Tensor]:
    ids = tokens()
    if model.config.is_encoder_decoder:
        return {"input_ids": ids, "decoder_input_ids": ids}
    return {"input_ids": ids}


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(**inputs(model)).logits


def train(model: PeftModel, steps: int = 10, learning_rate: float = 1e-2) -> list[float]:
    """Losses of repeated steps on one batch; the model is in evaluation mode afterwards."""
    model.train()
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=learning_rate, weight_decay=0.01
    )
    losses = []
    for _ in range(steps):
        ids = tokens()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def perturb(model: PeftModel) -> None:
    """Change every trainable parameter a little; for 16-bit weights, on which Adam divides by zero."""
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.02)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
