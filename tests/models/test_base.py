"""Base models: loading, and forks that share storage."""

import dataclasses

import pytest
import torch
from transformers import LlamaConfig

from harness.config.schema import DType
from harness.errors import ModelFault
from harness.models import base as model_base
from tests.support.model_cases import (
    ids,
    model,
    network,
    tied,
    tokenizer,
)


def test_base_is_frozen_evaluating_tied_and_complete(base, folder):
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert tied(base.model)
    assert (base.device, base.dtype, base.model.dtype) == (torch.device("cpu"), torch.float32, torch.float32)
    assert base.seconds > 0
    torch.testing.assert_close(base.model(ids()).logits, network()(ids()).logits)


def test_attention_implementation_is_a_setting(folder):
    assert model_base.load_base(model(folder, attn_implementation="eager")).model.config._attn_implementation == "eager"
    with pytest.raises(ModelFault, match=r"model.attn_implementation=nonsense"):
        model_base.load_base(model(folder, attn_implementation="nonsense"))


def test_checkpoint_with_missing_weights_is_refused(folder, tmp_path):
    config = LlamaConfig.from_pretrained(folder)
    network(num_hidden_layers=1).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)  # now asks for two layers
    tokenizer(eos_token="<|im_end|>").save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match=r"lacks weights that the architecture needs: .*model.layers.1"):
        model_base.load_base(model(tmp_path))


def test_damaged_weights_and_absent_tokenizer_are_named(folder, tmp_path):
    network().save_pretrained(tmp_path)
    with pytest.raises(ModelFault, match="has no tokenizer"):
        model_base.load_base(model(tmp_path))
    tokenizer(eos_token="<|im_end|>").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFault, match="model=toy: transformers cannot load"):
        model_base.load_base(model(tmp_path))


@pytest.mark.parametrize("private", [False, True])
def test_fork_computes_the_same_and_keeps_ties(base, private):
    fork = model_base.fork(base, private)
    assert tied(fork)
    assert fork is not base.model
    assert fork.config is not base.model.config
    assert torch.equal(fork(ids()).logits, base.model(ids()).logits)
    shared = {p.data_ptr() for p in base.model.parameters()} & {p.data_ptr() for p in fork.parameters()}
    assert bool(shared) != private
    assert not {id(p) for p in base.model.parameters()} & {id(p) for p in fork.parameters()}


def test_fork_of_untied_model_stays_untied(folder, base):
    base = dataclasses.replace(base, model=network(tie_word_embeddings=False))
    fork = model_base.fork(base, False)
    assert not tied(fork)


def test_training_an_adapter_on_a_fork_leaves_the_base_bit_exact(base):
    from peft import LoraConfig, get_peft_model

    before, logits = model_base.fingerprint_weights(base.model), base.model(ids()).logits
    tree = [name for name, _ in base.model.named_modules()]
    tuned = get_peft_model(
        model_base.fork(base, False), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the first step moves B only
        tuned(ids(), labels=ids()).loss.backward()
        optimizer.step()
    assert not torch.equal(tuned(ids()).logits, logits)
    assert [name for name, _ in base.model.named_modules()] == tree
    assert not hasattr(base.model, "peft_config")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert model_base.fingerprint_weights(base.model) == before
    assert torch.equal(base.model(ids()).logits, logits)


def test_fingerprint_sees_one_bit_and_private_forks_protect_from_it(base):
    before = model_base.fingerprint_weights(base.model)
    private = model_base.fork(base, True)
    assert model_base.fingerprint_weights(private) == before
    private.lm_head.weight.data.view(torch.int32)[0, 0] ^= 1
    assert model_base.fingerprint_weights(private) != before
    assert model_base.fingerprint_weights(base.model) == before
    shared = model_base.fork(base, False)
    shared.lm_head.weight.data.view(torch.int32)[0, 0] ^= 1  # what a misbehaving method would do
    assert model_base.fingerprint_weights(base.model) != before


def test_fingerprint_reads_half_precision(folder):
    loaded = model_base.load_base(model(folder, dtype=DType.bfloat16))
    assert model_base.fingerprint_weights(loaded.model) == model_base.fingerprint_weights(model_base.fork(loaded, True))


class Quantized(torch.nn.Parameter):
    """Stands for bitsandbytes' parameters: a subclass with state of its own."""


def test_quantized_parameters_are_shared_as_they_are(base):
    special = Quantized(torch.zeros(2), requires_grad=False)
    base.model.register_parameter("special", special)
    assert model_base.fork(base, False).special is special


def test_fork_of_a_dispatched_model_runs_its_own_modules(base):
    """accelerate's hooks wrap ``forward``; a copy whose wrapper called the original would ignore the adapter."""
    from accelerate import dispatch_model

    base.model = dispatch_model(base.model, {"": "cpu"}, force_hooks=True)
    fork = model_base.fork(base, True)
    before = base.model(ids()).logits
    fork.get_output_embeddings().weight.data.zero_()
    assert torch.equal(base.model(ids()).logits, before)
    assert not fork(ids()).logits.any()
