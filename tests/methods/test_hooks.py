"""What methods do in training beyond their parameters."""

from __future__ import annotations

import pytest
import torch

from harness.methods.context import BuildContext
from harness.methods.hooks import adapter_of
from harness.methods.lora import LoraHooks
from harness.methods.registry import METHODS, hooks_of
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


@pytest.mark.parametrize("rate", [1e-2, 1e-5])
def test_gates_of_diff_pruning_move_at_a_rate_of_their_own(rate):
    model = build("diff_pruning", "qwen2").train()
    settings = sheet("diff_pruning")
    assert hooks_of("diff_pruning", settings).optimizer(model, settings, rate, 0.0) is None
    _, config, _ = adapter_of(model)
    gates = [p for name, p in model.named_parameters() if "diffprune_gate" in name]
    for gate in gates:
        gate.grad = torch.ones_like(gate)
    torch.optim.AdamW(gates, lr=rate, weight_decay=0.0).step()
    moved = {round(float(config.gate_speed * gate.detach().abs().max()), 4) for gate in gates}
    assert moved == {settings["gate_learning_rate"]} == {0.1}


def test_p_tuning_v2_starts_from_small_keys_and_values():
    model = build("p_tuning_v2", "qwen2", num_virtual_tokens=50)
    encoder = model.prompt_encoder["default"]
    assert float(encoder.embedding.weight.detach().std()) == pytest.approx(sheet("p_tuning_v2")["init_std"], rel=0.05)


@pytest.mark.parametrize("projection", [True, False])
def test_prefix_tuning_starts_from_scaled_keys_and_values(projection):
    def start(scale):
        torch.manual_seed(0)
        model = build("prefix_tuning", "qwen2", init_scale=scale, prefix_projection=projection)
        encoder = model.prompt_encoder["default"]
        return encoder(torch.zeros(1, dtype=torch.long)).detach()

    assert sheet("prefix_tuning")["init_scale"] == 0.1
    torch.testing.assert_close(start(0.1), 0.1 * start(1.0))


@pytest.mark.parametrize(("steps", "interval"), [(30, 1), (3_999, 1), (4_000, 10), (9_999, 10), (85_000, 100)])
def test_adalora_prunes_as_often_as_its_published_scripts(steps, interval):
    settings = sheet("adalora")
    config = METHODS["adalora"].build(settings, BuildContext(steps, "", 0, 64, 2))
    assert config.deltaT == interval
    assert (config.tinit, config.tfinal) == (int(0.1 * steps), int(0.45 * steps))
    assert METHODS["adalora"].build(settings | {"deltaT": 7}, BuildContext(steps, "", 0, 64, 2)).deltaT == 7
