"""Trainable parameters that papers and documentation print, from the model's dimensions alone."""

from __future__ import annotations

import json

import pytest

from harness.estimate.parameters import count_trainable
from tests.support.paths import SHARED

PUBLISHED = SHARED / "reference" / "published_param_counts.json"
if not PUBLISHED.exists():
    pytest.skip(f"{PUBLISHED} is not on this machine", allow_module_level=True)
ROWS = json.loads(PUBLISHED.read_text(encoding="utf-8"))["rows"]

# Rows that no method or architecture of ours covers, by (base model, method), with the reason. None now.
LEFT_OUT: dict[tuple[str, str], str] = {}

# Published names of a layer, by architecture. transformers' GPT-2 fuses queries, keys and values, and has no GPT-3;
# OPT has the same blocks with a layer for each, as the papers' own code counts them.
LAYERS = {
    "roberta": {"q": "query", "v": "value", "query": "query", "value": "value"},
    "deberta-v2": {"query": "query_proj", "value": "value_proj"},
    "opt": {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"},
    "llama": {part: f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")},
    "qwen2": {part: f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")},
    "bloom": {},
}


def name(row: dict) -> str:
    return f"{row['base_model']} {row['method']} {json.dumps(row['settings'])}"


def model_config(row: dict, model_type: str) -> dict:
    """A config.json of these dimensions."""
    dims = row["dims"]
    common = {"model_type": model_type, "vocab_size": dims["vocab"], "tie_word_embeddings": dims["tied_embeddings"]}
    plain = {
        "hidden_size": dims["hidden"],
        "num_hidden_layers": dims["layers"],
        "num_attention_heads": dims["heads"],
        "intermediate_size": dims["ffn"],
    }
    match model_type:
        case "gpt2":
            return common | {
                "n_embd": dims["hidden"],
                "n_layer": dims["layers"],
                "n_head": dims["heads"],
                "n_inner": dims["ffn"],
                "n_positions": dims["max_pos"],
            }
        case "opt":
            projection = 512 if "word_embed_proj_dim 512" in dims.get("note", "") else dims["hidden"]
            return common | {
                "hidden_size": dims["hidden"],
                "num_hidden_layers": dims["layers"],
                "num_attention_heads": dims["heads"],
                "ffn_dim": dims["ffn"],
                "max_position_embeddings": dims["max_pos"],
                "word_embed_proj_dim": projection,
            }
        case "bloom":
            return common | {"hidden_size": dims["hidden"], "n_layer": dims["layers"], "n_head": dims["heads"]}
        case "t5":
            return common | {
                "d_model": dims["hidden"],
                "num_layers": dims["layers"] // 2,
                "num_heads": dims["heads"],
                "d_kv": dims["head_dim"],
                "d_ff": dims["ffn"],
                "feed_forward_proj": "gated-gelu",
            }
        case "llama" | "qwen2":
            return common | plain | {"num_key_value_heads": dims["kv_heads"], "head_dim": dims["head_dim"]}
    return common | plain | {"max_position_embeddings": dims["max_pos"]}


def translated(row: dict) -> tuple[str, str, dict]:
    """Architecture, method and settings, in our words. Raises ``KeyError`` for what we have no word for."""
    settings, architecture = row["settings"], row["dims"]["arch"]
    kind = {"gpt3": "opt", "t5 v1.1": "t5"}.get(architecture, architecture)
    if kind == "gpt2" and "targets" in settings:
        kind = "opt"
    match row["method"]:
        case "LoRA" | "VeRA" | "LN tuning":
            method = {"LoRA": "lora", "VeRA": "vera", "LN tuning": "ln_tuning"}[row["method"]]
            targets = [LAYERS[kind].get(target, target) for target in settings["targets"]]
            rank = {"r": settings["r"]} if "r" in settings else {}
            return kind, method, {"target_modules": targets} | rank
        case "Adapter-L (Lin et al. 2020)" | "Adapter-L":
            size = {"bottleneck_size": settings["bottleneck"], "adapter_layer_norm": True}
            return kind, "adapter", size | {"placement": "pfeiffer"}
        case "Adapter-H":
            return kind, "adapter", {"bottleneck_size": settings["bottleneck"], "placement": "houlsby"}
        case "fine-tune top 2 layers":
            return kind, "partial", {"last_layers": len(settings["layers"])}
        case "full fine-tuning":
            return kind, "full", {}
        case "prefix-embedding":  # embeddings before and after the prompt: as many numbers as a prompt of both
            return kind, "prompt_tuning", {"num_virtual_tokens": settings["l_p"] + settings["l_i"]}
        case "prompt tuning":
            length = settings.get("length") or settings["virtual_tokens"]
            encoder = {"num_transformer_submodules": 1} if kind == "t5" else {}  # of the encoder alone
            return kind, "prompt_tuning", {"num_virtual_tokens": length} | encoder
        case "prefix tuning":
            projection = {"prefix_projection": settings["projection"]}
            return kind, "prefix_tuning", {"num_virtual_tokens": settings["virtual_tokens"]} | projection
        case "P-tuning":
            encoder = {"encoder_hidden_size": settings["encoder_hidden"]}
            encoder |= {"encoder_reparameterization_type": settings["encoder"]}
            return kind, "p_tuning", {"num_virtual_tokens": settings["virtual_tokens"]} | encoder
    raise KeyError(row["method"])


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_the_published_count(row):
    if (row["base_model"], row["method"]) in LEFT_OUT:
        pytest.skip(LEFT_OUT[row["base_model"], row["method"]])
    kind, method, settings = translated(row)
    assert count_trainable(model_config(row, kind), method, settings).trainable == row["trainable_params_from_dims"]


def test_left_out_rows_exist():
    assert set(LEFT_OUT) <= {(row["base_model"], row["method"]) for row in ROWS}
