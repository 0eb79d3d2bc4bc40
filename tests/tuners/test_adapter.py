"""Bottleneck adapters: published counts, places, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from harness.tuners.adapter import LOCATIONS, AdapterConfig
from tests.support.tuners_models import (
    SHAPES,
    base_model,
    logits,
    train,
    wrap,
)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "settings", "published"),
    [
        (24, 1024, 16, {"placement": "pfeiffer", "bottleneck_size": 6, "adapter_layer_norm": True}, 368784),
        (24, 1024, 16, {"placement": "pfeiffer", "bottleneck_size": 224, "adapter_layer_norm": True}, 11089152),
        (36, 1280, 20, {"placement": "pfeiffer", "bottleneck_size": 8, "adapter_layer_norm": True}, 875808),
        (36, 1280, 20, {"placement": "pfeiffer", "bottleneck_size": 248, "adapter_layer_norm": True}, 23002848),
        (96, 12288, 96, {"placement": "houlsby", "bottleneck_size": 1}, 7078080),
        (96, 12288, 96, {"placement": "houlsby", "bottleneck_size": 8}, 40109568),
    ],
)
def test_counts_of_the_lora_paper(layers, hidden, heads, settings, published):
    """Adapter-L of table 3 and Adapter-H of table 4 in Hu et al. 2021 (arXiv:2106.09685)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("gpt2", n_layer=layers, n_embd=hidden, n_head=heads)
        )
    model = get_peft_model(model, AdapterConfig(**settings))
    assert model.get_nb_trainable_parameters()[0] == published


@pytest.mark.parametrize("model_type", sorted(LOCATIONS.keys() & SHAPES.keys()))
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_default_places_of_every_architecture(model_type, placement):
    base = base_model(model_type)
    expected = logits(base)
    if placement == "parallel" and LOCATIONS[model_type][2] is None:
        with pytest.raises(ValueError, match=r"adapter\.placement=parallel .* choose houlsby or pfeiffer"):
            get_peft_model(base, AdapterConfig(bottleneck_size=4, placement=placement))
        return
    model = get_peft_model(base, AdapterConfig(bottleneck_size=4, placement=placement)).eval()
    assert torch.equal(logits(model), expected)
    stacks = 2 if model.config.is_encoder_decoder else 1
    adapters = stacks * 2 * (2 if placement == "houlsby" else 1)
    assert model.get_nb_trainable_parameters()[0] == adapters * (2 * 32 * 4 + 4 + 32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".up.weight" in name:
                parameter.normal_(std=0.1)
    assert not torch.equal(logits(model), expected)


def test_every_default_place_is_tested():
    assert LOCATIONS.keys() - SHAPES.keys() == {"gemma3"}  # the same text model inside a vision model


def test_parallel_adapter_adds_scaled_bottleneck_of_the_mlp_input():
    model = wrap("llama", "adapter_parallel")
    train(model, steps=2)
    layer = model.base_model.model.model.layers[0].mlp
    x = torch.randn(1, 3, 32)
    adapter = layer.bottleneck_modules["default"]
    by_hand = adapter.up(torch.nn.functional.gelu(adapter.down(x))) * 4.0
    torch.testing.assert_close(layer(x), layer.base_layer(x) + by_hand)


def test_unknown_architecture_asks_for_target_modules():
    base = base_model("llama")
    base.config.model_type = "novel"
    with pytest.raises(ValueError, match=r"model_type=novel .*llama.*set adapter\.target_modules"):
        get_peft_model(base, AdapterConfig(bottleneck_size=4))
    model = get_peft_model(base, AdapterConfig(bottleneck_size=4, target_modules=["down_proj"]))
    assert model.get_nb_trainable_parameters()[0] == 2 * (2 * 32 * 4 + 4 + 32)


@pytest.mark.parametrize(("first", "second"), [("houlsby", "parallel"), ("parallel", "houlsby")])
def test_adapters_that_would_nest_are_refused(first, second):
    model = get_peft_model(base_model("llama"), AdapterConfig(bottleneck_size=4, placement=first))
    with pytest.raises(ValueError, match=r"mlp\.down_proj is inside .*mlp, .* same placement"):
        model.add_adapter("second", AdapterConfig(bottleneck_size=4, placement=second))


def test_reduction_factor_above_the_width():
    with pytest.raises(ValueError, match=r"adapter\.reduction_factor=64 exceeds the width 32"):
        get_peft_model(base_model("llama"), AdapterConfig(reduction_factor=64))


def test_adapter_targets_that_match_nothing():
    with pytest.raises(ValueError, match=r"adapter\.target_modules=\['nope'\] matches no module"):
        get_peft_model(base_model("llama"), AdapterConfig(bottleneck_size=4, target_modules=["nope"]))
