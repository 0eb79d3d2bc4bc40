"""Diff pruning: gates, penalty, projection and the sparse stage."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, get_peft_model

from harness.tuners.diff_layer import DiffPruningConfig, hard_concrete
from tests.support.tuners_models import (
    base_model,
    logits,
    setting,
    snapshot,
    tokens,
    train,
    wrap,
)


def test_hard_concrete_gates_reach_exact_zero_and_one():
    torch.manual_seed(0)
    gates = hard_concrete(torch.zeros(10_000), -1.5, 1.5, sample=True)
    assert (gates == 0).any()
    assert (gates == 1).any()
    # P(z > 0) = sigmoid(alpha - log(-l / r)) = 1/2 at alpha = 0
    assert abs((gates > 0).float().mean().item() - 0.5) < 0.02
    assert hard_concrete(torch.tensor([-5.0, 5.0]), -1.5, 1.5, sample=False).tolist() == [0.0, 1.0]


def test_expected_l0_counts_open_gates_by_group_and_element():
    model = wrap("llama", "diff_pruning", l0_weight=1.0)
    weights = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    open_share = torch.sigmoid(torch.tensor(5.0)).item() ** 2
    assert model.base_model.penalty().item() == pytest.approx(weights * open_share, rel=1e-4)
    flat = wrap("llama", "diff_pruning", l0_weight=1.0, structured=False)
    assert flat.base_model.penalty().item() == pytest.approx(weights * open_share**0.5, rel=1e-4)


def test_penalty_is_in_the_training_loss_and_never_in_evaluation():
    heavy, light = (wrap("llama", "diff_pruning", l0_weight=weight) for weight in (1.0, 0.0))
    batch = {"input_ids": tokens(), "labels": tokens()}
    torch.testing.assert_close(heavy(**batch).loss, light(**batch).loss)
    heavy.train()
    light.train()
    difference = heavy(**batch).loss - light(**batch).loss
    torch.testing.assert_close(difference, heavy.base_model.penalty(), rtol=1e-4, atol=1e-2)
    with heavy.disable_adapter():
        torch.testing.assert_close(heavy(**batch).loss, light(**batch).loss)


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_penalty_closes_gates(task_type):
    model = wrap("llama", "diff_pruning", l0_weight=1e-2, task_type=task_type)
    before = model.base_model.penalty().item()
    train(model, steps=20)
    assert model.base_model.penalty().item() < 0.5 * before


@pytest.mark.parametrize("share", [0.005, 0.1])
def test_projection_keeps_the_largest_differences(share, tmp_path):
    model = wrap("llama", "diff_pruning")
    train(model)
    dense = {
        name: layer.dense("default", sample=False)["weight"].detach().clone()
        for name, layer in model.base_model.layers_of("default").items()
    }
    report = model.base_model.project(target_sparsity=share)
    targeted = sum(diff.numel() for diff in dense.values())
    assert report.targeted == targeted
    assert report.nonzeros == int(share * targeted)
    assert report.bytes == 8 * report.nonzeros
    threshold = torch.cat([diff.abs().flatten() for diff in dense.values()]).topk(report.nonzeros).values[-1]
    for name, layer in model.base_model.layers_of("default").items():
        expected = torch.where(dense[name].abs() >= threshold, dense[name], 0.0)
        kept = layer.overrides(["default"], sample=False).get("weight", layer.base_layer.weight)
        torch.testing.assert_close(kept - layer.base_layer.weight, expected, atol=1e-6, rtol=0)

    expected = logits(model)
    model.save_pretrained(tmp_path)
    saved = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert saved < 8 * report.nonzeros + 6000  # the header
    for low in (False, True):
        again = PeftModel.from_pretrained(base_model("llama"), tmp_path, low_cpu_mem_usage=low)
        assert torch.equal(logits(again), expected)
        assert again.base_model.sparsity_report() == report
    torch.testing.assert_close(logits(again.merge_and_unload()), expected, atol=1e-5, rtol=0)


def test_fixed_mask_stage_trains_the_kept_values_only():
    model = wrap("llama", "diff_pruning")
    train(model)
    report = model.base_model.project(trainable=True)
    assert model.get_nb_trainable_parameters()[0] == report.nonzeros
    places = snapshot(model)
    losses = train(model)
    assert losses[-1] < losses[0]
    after = model.state_dict()
    assert all(torch.equal(after[name], places[name]) for name in places if "diffprune_values" not in name)


def test_projecting_twice_or_reporting_too_early_is_refused():
    model = wrap("llama", "diff_pruning")
    with pytest.raises(ValueError, match="dense until project"):
        model.base_model.sparsity_report()
    train(model, steps=1)
    model.base_model.project()
    with pytest.raises(ValueError, match="already projected"):
        model.base_model.project()
    with pytest.raises(ValueError, match="no adapter 'other'"):
        model.base_model.layers_of("other")


def test_projected_checkpoint_loads_over_a_dense_adapter_and_not_the_reverse(tmp_path):
    model = wrap("llama", "diff_pruning")
    model.save_pretrained(tmp_path / "dense")
    train(model, steps=2)
    model.base_model.project()
    expected = logits(model)
    model.save_pretrained(tmp_path / "sparse")
    resumed = wrap("llama", "diff_pruning")
    resumed.load_adapter(tmp_path / "sparse", "default", is_trainable=True)
    assert torch.equal(logits(resumed), expected)
    assert resumed.base_model.sparsity_report() == model.base_model.sparsity_report()
    with pytest.raises(ValueError, match="from before projection"):
        resumed.load_adapter(tmp_path / "dense", "default", is_trainable=True)


def test_projected_and_dense_adapters_share_a_base():
    model = wrap("llama", "diff_pruning")
    train(model, steps=2)
    model.base_model.project()
    first = logits(model)
    model.add_adapter("second", setting("diff_pruning"))
    model.set_adapter("second")
    train(model, steps=2)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_all_parameters_of_an_untied_model_and_refusal_on_a_tied_one():
    base = base_model("llama")
    total = sum(p.numel() for p in base.parameters())
    model = get_peft_model(base, DiffPruningConfig(modules="all", structured=False))
    assert model.get_nb_trainable_parameters()[0] == 2 * total
    with pytest.raises(ValueError, match=r"diff_pruning\.modules=all .*tied to"):
        get_peft_model(base_model("qwen2"), DiffPruningConfig(modules="all"))


def test_all_linear_leaves_the_head_alone_and_includes_biases():
    model = get_peft_model(base_model("qwen2"), DiffPruningConfig(structured=False))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("lm_head" in name or "norm" in name for name in names)
    assert any("q_proj.diffprune_diff.default.bias" in name for name in names)
