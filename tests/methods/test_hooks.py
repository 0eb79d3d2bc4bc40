"""What methods do in training beyond their parameters."""

from __future__ import annotations

import pytest

from harness.methods.lora import LoraHooks
from harness.methods.registry import hooks_of
from tests.support.method_cases import (
    build,
    finish,
    parts,
    sheet,
    train,
)


def test_lora_fa_freezes_a_and_lora_plus_speeds_up_b():
    model = build("lora:lora_fa", "qwen2")
    assert LoraHooks().optimizer(model, parts("lora:lora_fa")[1], 1e-3, 0.0) is not None
    assert not any(p.requires_grad for name, p in model.named_parameters() if "lora_A" in name)
    model = build("lora:lora_plus", "qwen2")
    optimizer = LoraHooks().optimizer(model, parts("lora:lora_plus")[1], 1e-3, 0.1)
    rates = {group["lr"] for group in optimizer.param_groups if group["params"]}
    assert rates == {1e-3, 4e-3}
    assert hooks_of("ia3", sheet("ia3")).optimizer(model, sheet("ia3"), 1e-3, 0.0) is None


def test_diff_pruning_ends_sparse_and_others_end_unchanged():
    model = build("diff_pruning", "qwen2")
    train(model, "diff_pruning", steps=2)
    assert finish(model, "diff_pruning")["sparsity"] == pytest.approx(0.1, abs=0.01)
    assert finish(build("lora", "qwen2"), "lora") == {}
