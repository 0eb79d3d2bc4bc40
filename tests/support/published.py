"""A small result in the format of PEFT's method_comparison, written for the tests."""

import copy
import json
from pathlib import Path
from typing import Any

MODEL = "example/tiny-llama"

RESULT: dict[str, Any] = {
    "run_info": {
        "created_at": "2025-03-01T10:00:00+00:00",
        "total_time": 100.5,
        "experiment_name": "lora/tiny-rank4",
        "peft_branch": "main",
        "train_config": {
            "model_id": MODEL,
            "dtype": "bfloat16",
            "max_seq_length": 128,
            "batch_size": 4,
            "max_steps": 20,
            "query_template": "Q: {query} A:",
            "seed": 0,
            "grad_norm_clip": 1.0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.002, "weight_decay": 0.1},
            "lr_scheduler": "cosine",
            "generation_kwargs": {"max_new_tokens": 30},
        },
        "peft_config": {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8},
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_max": 4096,
        "train_time": 50.0,
        "file_size": 2048,
        "num_trainable_params": 1000,
        "num_total_params": 100000,
        "status": "success",
        "metrics": [
            {"step": 10, "valid accuracy": 0.25, "train loss": 2.5, "train samples": 40, "eval time": 1.0},
            {"step": 20, "valid accuracy": 0.5, "train loss": 1.5, "train samples": 80, "eval time": 1.0},
            {"step": 20, "test accuracy": 0.375, "train loss": 1.5, "train total tokens": 5000, "forgetting": 0.125},
        ],
    },
    "meta_info": {
        "model_info": {"sha": "ab" * 20},
        "dataset_info": {"metamath": {"sha": "cd" * 20}, "gsm8k": {"sha": "ef" * 20}},
        "package_info": {"peft-version": "0.15.0", "peft-commit-hash": "12" * 20, "torch-version": "2.6.0"},
        "system_info": {"system": "Linux", "accelerator": "Some GPU"},
    },
}


def result(**changes: Any) -> dict[str, Any]:
    """A result; a change names a place (``run_info__train_config__seed=1``); ``...`` deletes what is there."""
    made = copy.deepcopy(RESULT)
    for place, value in changes.items():
        *path, last = place.split("__")
        node = made
        for key in path:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return made


def write_result(folder: Path, name: str = "lora--tiny-rank4.json", **changes: Any) -> Path:
    """The same as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(json.dumps(result(**changes)), encoding="utf-8")
    return file
