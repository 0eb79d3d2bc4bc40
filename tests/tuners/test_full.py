"""Full fine-tuning: the base copy, ties, and checkpoints of other models."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict

from harness.tuners.full import FullConfig
from tests.support.tuners_models import (
    base_model,
    logits,
    train,
    wrap,
)


def test_full_without_a_base_copy_says_how_to_get_one():
    model = get_peft_model(base_model("llama"), FullConfig())
    train(model, steps=1)
    tuned = logits(model)
    with pytest.raises(RuntimeError, match=r"full\.keep_base=true"), model.disable_adapter():
        pass
    with pytest.raises(RuntimeError, match=r"full\.keep_base=true"):
        model.unload()
    assert torch.equal(logits(model), tuned)


def test_full_takes_one_adapter():
    model = wrap("llama", "full")
    with pytest.raises(ValueError, match="takes one adapter"):
        model.add_adapter("second", FullConfig())
    assert list(model.peft_config) == ["default"]


def test_full_saves_tied_weights_once_and_keeps_them_tied(tmp_path):
    model = wrap("qwen2", "full")
    saved = get_peft_model_state_dict(model)
    assert "base_model.model.lm_head.weight" not in saved
    assert sum(t.numel() for t in saved.values()) == model.get_nb_trainable_parameters()[0]
    model.save_pretrained(tmp_path)
    for low in (False, True):
        again = PeftModel.from_pretrained(base_model("qwen2", seed=5), tmp_path, low_cpu_mem_usage=low)
        inner = again.get_base_model()
        assert inner.lm_head.weight is inner.model.embed_tokens.weight
        assert torch.equal(logits(again), logits(model))


def test_full_refuses_a_checkpoint_of_another_model(tmp_path):
    wrap("llama", "full").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not of this model"):
        PeftModel.from_pretrained(base_model("qwen2"), tmp_path)


def test_full_refuses_to_save_the_base_weights_as_the_adapter():
    model = wrap("llama", "full")
    with model.disable_adapter(), pytest.raises(RuntimeError, match="outside disable_adapter"):
        get_peft_model_state_dict(model)


def test_full_disabled_twice_comes_back_once():
    model = wrap("llama", "full")
    train(model, steps=1)
    tuned = logits(model)
    with model.disable_adapter():
        base = logits(model)
        with model.disable_adapter():
            assert torch.equal(logits(model), base)
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), tuned)
    assert all(p.requires_grad for p in model.get_base_model().parameters())


def test_full_refuses_a_quantized_base():
    base = base_model("llama")
    base.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(48, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ValueError, match=r"up_proj.weight, which is torch.int8 \(quantized\)"):
        get_peft_model(base, FullConfig())
