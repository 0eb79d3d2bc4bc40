"""Every method over a base in 4 and in 8 bits: those that claim to work there do, those that do not are refused.

The base is a tied Qwen2 with biases: bitsandbytes treats layers with and without one differently. It is loaded once
for each kind and forked for each case, as sweeps do.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from harness.adapters import attach as adapter_attach
from harness.adapters import save_load
from harness.config.schema import Quantization
from harness.errors import ModelFault
from harness.methods.registry import changes_base, traits_of, why_unquantized
from harness.models import base as model_base
from harness.models import quantization
from tests.support.method_cases import CASES, SEED, batches, context, logits, parts, train
from tests.support.tuners_models import base_model

pytest.importorskip("bitsandbytes", reason="weights in a few bits need bitsandbytes")

KINDS = (Quantization.nf4, Quantization.int8)
CROSS = [(case, kind.value) for case in CASES for kind in KINDS]
REFUSED = [(case, kind) for case, kind in CROSS if why_unquantized(*parts(case)[:2], Quantization(kind).value)]
# Unpacked, a base in 4 bits computes the same; one in 8 bits also rounded its inputs.
ROUNDED = {"nf4": 1e-5, "int8": 1e-2}


@functools.cache
def base(kind: str) -> SimpleNamespace:
    """The shared base as ``models.load_base`` leaves it, used once: the first call moves its statistics."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base_model("qwen2").save_pretrained(folder)
        how = quantization.loading_arguments(Quantization(kind), torch.float32)
        net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": "cpu"}, **how)
    quantization.prepare_for_training(net, SimpleNamespace(quantization=Quantization(kind)))
    net.requires_grad_(False).eval()
    return SimpleNamespace(model=net, logits=logits(net), bytes=model_base.fingerprint_weights(net))


def fork(kind: str, private: bool = False) -> nn.Module:
    return model_base.fork(base(kind), private)


def attach(case: str, kind: str) -> nn.Module:
    method, settings, _ = parts(case)
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forked = fork(kind, changes_base(method, settings))
        return adapter_attach.attach(forked, method, settings, context()).eval()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def faults(case: str, kind: str, folder: Path) -> list[str]:
    """What does not hold when the method trains over this base; or its exception."""
    method, settings, _ = parts(case)
    plain, found = base(kind), []
    model = attach(case, kind)
    start = distance(logits(model), plain.logits)
    if traits_of(method, settings).identity_at_start and start > ROUNDED[kind]:
        found.append(f"the start is {start:.1e} from the base")
    write = save_load.adapter_writer(model, folder / "scratch")
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    losses = train(model, case, steps=3)
    if case == "library:pvera":  # samples while it trains
        losses[-1] = float(model(**next(batches())).loss)
    if not losses[-1] < losses[0]:
        found.append(f"the loss goes from {losses[0]} to {losses[-1]}")
    after = model.state_dict()
    changed = {name for name in before if ".ranknum." not in name and not torch.equal(after[name], before[name])}
    places = {parameter.data_ptr() for parameter in model.parameters() if parameter.requires_grad}
    stray = [name for name in changed if after[name].data_ptr() not in places]
    found += [f"{stray[0]} changed"] if stray else []
    trained = logits(model)
    with model.disable_adapter():
        if not torch.equal(logits(model), plain.logits):
            found.append("with the adapter disabled this is not the base")
    write(folder / "adapter")
    reloaded = distance(logits(adapter_attach.load_peft_model(fork(kind), folder / "adapter")), trained)
    found += [f"reloaded, it is {reloaded:.1e} away"] if reloaded > 1e-6 else []
    plain_weights = quantization.dequantized(fork(kind, private=True), torch.float32)
    dense = adapter_attach.load_peft_model(plain_weights, folder / "adapter")
    unpacked = distance(logits(dense), trained)
    found += [f"over the unpacked base it is {unpacked:.1e} away"] if unpacked > ROUNDED[kind] else []
    if traits_of(method, settings).mergeable:  # as stage=export does
        merged = distance(logits(dense.merge_and_unload()), trained)
        found += [f"merged into the unpacked base it is {merged:.1e} away"] if merged > ROUNDED[kind] else []
    if model_base.fingerprint_weights(plain.model) != plain.bytes or not torch.equal(logits(plain.model), plain.logits):
        base.cache_clear()
        found.append("the shared base changed")
    return found


@pytest.mark.parametrize(("case", "kind"), [pair for pair in CROSS if pair not in REFUSED])
def test_it_trains_over_a_quantized_base_and_fits_it_when_loaded_again(case, kind, tmp_path):
    assert faults(case, kind, tmp_path) == []


@pytest.mark.parametrize(("case", "kind"), REFUSED)
def test_what_would_fail_is_refused_with_the_reason(case, kind, tmp_path, monkeypatch):
    method, settings, _ = parts(case)
    with pytest.raises(ModelFault, match=traits_of(method, settings).why_unquantized):
        attach(case, kind)
    monkeypatch.setattr(adapter_attach, "why_unquantized", lambda *_: None)
    with contextlib.suppress(ModelFault, RuntimeError):
        assert faults(case, kind, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_gives_the_same_gradients_over_a_quantized_base(kind):
    def gradients(checkpointing: bool) -> list[torch.Tensor | None]:
        model = attach("lora", kind.value).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(**next(batches())).loss.backward()
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    plain, sparing = gradients(False), gradients(True)
    assert any(gradient.abs().sum() > 0 for gradient in plain)
    torch.testing.assert_close(sparing, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_bits_are_qloras_double_quantized_nf4_computed_with_in_the_models_precision(dtype, tmp_path):
    base_model("qwen2").save_pretrained(tmp_path)
    how = quantization.loading_arguments(Quantization.nf4, dtype)
    net = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, device_map={"": "cpu"}, **how)
    quantization.prepare_for_training(net, SimpleNamespace(quantization=Quantization.nf4))
    layer = net.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested  # the scales are quantized too
    assert layer.compute_dtype == dtype
    whole = [net.model.norm.weight, net.model.embed_tokens.weight, net.lm_head.weight]
    assert {tensor.dtype for tensor in whole} == {torch.float32}  # as QLoRA trains: prepare_model_for_kbit_training
    assert not any(parameter.requires_grad for parameter in net.parameters())
