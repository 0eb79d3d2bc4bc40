"""Convert a base to LitGPT's format, with LitGPT's own functions: runs in LitGPT's environment.

``convert_hf_checkpoint`` knows models by name; this one reads their ``config.json``, so that models without a name,
such as the embedded one, can be compared.
"""

import argparse
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()

    from litgpt.config import Config
    from litgpt.scripts import convert_hf_checkpoint as convert
    from litgpt.utils import incremental_save, save_config
    from safetensors.torch import load_file

    shape = json.loads((given.base / "config.json").read_text(encoding="utf-8"))
    config = Config(**settings(shape))
    given.out.mkdir(parents=True, exist_ok=True)
    save_config(config, given.out)
    own: dict[Any, Any] = {}
    copy = {
        "qwen2": partial(convert.copy_weights_qwen_2_5, config, own),
        "llama": partial(convert.copy_weights_hf_llama, config, own),
        "gemma3_text": partial(convert.copy_weights_gemma_3, own, config=config),
    }[shape["model_type"]]
    weights: dict[str, Any] = {}
    with incremental_save(given.out / "lit_model.pth") as saver:
        copy(weights, load_file(given.base / "model.safetensors"), saver=saver)
        saver.save(weights)
    for name in ("tokenizer.json", "generation_config.json"):
        if (given.base / name).exists():
            shutil.copy(given.base / name, given.out / name)
    tokens = json.loads((given.base / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {name: tokens[name] for name in ("bos_token", "eos_token", "pad_token") if tokens.get(name)}
    kept |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": shape["model_type"] == "gemma3_text"}
    (given.out / "tokenizer_config.json").write_text(json.dumps(kept), encoding="utf-8")


def settings(shape: dict[str, Any]) -> dict[str, Any]:
    """LitGPT's settings of an architecture, from those of transformers."""
    gemma = shape["model_type"] == "gemma3_text"
    names = {"qwen2": "Qwen2.5-embedded", "llama": "SmolLM2-135M", "gemma3_text": "Gemma-3-270m"}
    rope = shape["rope_parameters"]
    values: dict[str, Any] = {
        "name": names[shape["model_type"]],
        "block_size": shape["max_position_embeddings"],
        "vocab_size": shape["vocab_size"],
        "padded_vocab_size": shape["vocab_size"],
        "n_layer": shape["num_hidden_layers"],
        "n_head": shape["num_attention_heads"],
        "n_embd": shape["hidden_size"],
        "n_query_groups": shape["num_key_value_heads"],
        "head_size": shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"],
        "intermediate_size": shape["intermediate_size"],
        "norm_eps": shape["rms_norm_eps"],
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
        "attn_bias": shape["model_type"] == "qwen2",
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "GemmaMLP" if gemma else "LLaMAMLP",
        "rope_base": int(rope["full_attention"]["rope_theta"] if gemma else rope["rope_theta"]),
    }
    if gemma:
        local = [int(kind == "sliding_attention") for kind in shape["layer_types"]]
        values |= {
            "scale_embeddings": True,
            "attention_scores_scalar": shape["query_pre_attn_scalar"],
            "sliding_window_size": shape["sliding_window"],
            "sliding_window_indices": local,
            "rope_indices": local,
            "rope_local_base_freq": rope["sliding_attention"]["rope_theta"],
            "gelu_approximate": "tanh",
            "post_attention_norm": True,
            "post_mlp_norm": True,
            "norm_qk": True,
        }
    return values


if __name__ == "__main__":
    main()
