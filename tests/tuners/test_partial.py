"""Partial fine-tuning: which modules, and what it refuses."""

from __future__ import annotations

import pytest
from peft import get_peft_model
from peft.utils import get_peft_model_state_dict

from harness.tuners.partial import PartialConfig
from tests.support.tuners_models import (
    base_model,
    logits,
    setting,
    wrap,
)


def test_partial_last_layers_counts_the_blocks():
    base = base_model("gpt2")
    block = sum(p.numel() for p in base.transformer.h[1].parameters())
    model = get_peft_model(base, PartialConfig(last_layers=1))
    assert model.get_nb_trainable_parameters()[0] == block
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".transformer.h.1." in name for name in trained)


def test_partial_last_layers_of_an_encoder_decoder_are_the_decoder_s():
    model = get_peft_model(base_model("t5"), PartialConfig(last_layers=1))
    assert all(".decoder.block.1." in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(("count", "message"), [(0, "is too small"), (3, "must be from 1 to 2")])
def test_partial_last_layers_out_of_range(count, message):
    with pytest.raises(ValueError, match=rf"partial\.last_layers={count} {message}"):
        get_peft_model(base_model("llama"), PartialConfig(last_layers=count))


def test_partial_choices_add_up():
    base = base_model("llama")
    config = PartialConfig(last_layers=1, norms=True, modules=["layers.0.mlp"])
    model = get_peft_model(base, config)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert model.get_nb_trainable_parameters()[0] == layer + 3 * 32 * 48 + 2 * 32 + 32


def test_partial_selecting_nothing():
    with pytest.raises(ValueError, match="partial selects nothing"):
        PartialConfig()
    with pytest.raises(ValueError, match=r"partial\.modules=\['nope'\] matches no module"):
        get_peft_model(base_model("llama"), PartialConfig(modules=["nope"]))


def test_partial_trains_an_untied_head_and_refuses_a_tied_one():
    model = get_peft_model(base_model("llama"), PartialConfig(modules=["lm_head"]))
    assert model.get_nb_trainable_parameters()[0] == 61 * 32
    assert list(get_peft_model_state_dict(model)) == ["base_model.model.lm_head.partial_copies.weight"]
    for name in ("lm_head", "embed_tokens"):
        with pytest.raises(ValueError, match=r"tied to .*tie_word_embeddings=false"):
            get_peft_model(base_model("qwen2"), PartialConfig(modules=[name]))


def test_partial_refuses_two_active_copies():
    model = wrap("llama", "partial_norms")
    model.add_adapter("second", setting("partial_norms"))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="one adapter at a time"):
        logits(model)
