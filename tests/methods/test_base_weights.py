"""Tokens chosen from the training rows."""

from __future__ import annotations

import torch

from tests.support.method_cases import (
    batches,
    build,
)


def test_trainable_tokens_are_the_most_frequent_of_the_rows():
    model = build("trainable_tokens", "qwen2", frequent_tokens=5)
    chosen = model.peft_config["default"].token_indices
    seen = torch.cat([batch["input_ids"][batch["attention_mask"].bool()] for batch in batches()])
    counts = torch.bincount(seen, minlength=61)
    assert len(chosen) == 5
    assert counts[chosen].min() >= counts[[token for token in range(61) if token not in chosen]].max()
