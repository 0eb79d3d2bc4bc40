"""BitFit: which biases, and missing ones added."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from harness.tuners.bitfit import BitFitConfig
from tests.support.tuners_models import (
    base_model,
    setting,
    train,
    wrap,
)


def test_bitfit_on_a_model_without_biases_names_the_remedy():
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no biases; bitfit\.add_missing=true"):
        get_peft_model(base_model("llama"), BitFitConfig())


def test_bitfit_trains_every_bias_and_nothing_else():
    base = base_model("gpt2")
    biases = sum(p.numel() for name, p in base.named_parameters() if name.endswith(".bias"))
    model = get_peft_model(base, BitFitConfig())
    assert model.get_nb_trainable_parameters()[0] == biases


def test_bitfit_adds_missing_biases_to_linear_layers_but_not_the_head():
    model = wrap("llama", "bitfit")
    per_layer = 32 + 16 + 16 + 32 + 48 + 48 + 32  # q, k, v, o, gate, up, down
    assert model.get_nb_trainable_parameters()[0] == 2 * per_layer


@pytest.mark.parametrize("targets", [["q_proj"], r".*\.q_proj"])
def test_bitfit_of_named_modules(targets):
    model = get_peft_model(base_model("qwen2"), BitFitConfig(modules=targets))
    assert model.get_nb_trainable_parameters()[0] == 2 * 32


def test_bitfit_targets_without_a_bias():
    with pytest.raises(ValueError, match=r"bitfit\.modules=\['o_proj'\] .*q_proj.*add_missing=true"):
        get_peft_model(base_model("qwen2"), BitFitConfig(modules=["o_proj"]))


def test_merging_added_biases_warns_that_the_architecture_drops_them():
    model = wrap("llama", "bitfit")
    with pytest.warns(UserWarning, match="from_pretrained would drop them"):
        merged = model.merge_and_unload()
    assert merged.model.layers[0].mlp.up_proj.bias is not None


def test_bitfit_adapters_add_up():
    model = wrap("gpt2", "bitfit")
    train(model, steps=2)
    model.add_adapter("second", setting("bitfit"))
    model.base_model.set_adapter("second")
    train(model, steps=2)
    layer = model.base_model.model.transformer.h[0].mlp.c_fc
    both = layer.overrides(["default", "second"], sample=False)["bias"]
    expected = layer.base_layer.bias + layer.bitfit_bias["default"] + layer.bitfit_bias["second"]
    torch.testing.assert_close(both, expected)
