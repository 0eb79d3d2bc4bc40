"""What PEFT expects of every tuner, held on four architectures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.support.paths import ROOT
from tests.support.tuners_models import (
    MAIN,
    SETTINGS,
    base_model,
    logits,
    perturb,
    setting,
    shape,
    snapshot,
    tokens,
    train,
    wrap,
)

MERGEABLE = [method for method in SETTINGS if not method.startswith("adapter")]


SEVERAL = [method for method in SETTINGS if method != "full"]


every_architecture = pytest.mark.parametrize("model_type", MAIN)


every_method = pytest.mark.parametrize("method", SETTINGS)


@every_architecture
@every_method
def test_starts_as_the_base_model(model_type, method):
    expected = logits(base_model(model_type))
    assert torch.equal(logits(wrap(model_type, method)), expected)


@every_architecture
@every_method
def test_training_changes_only_what_is_trainable_and_lowers_the_loss(model_type, method):
    model = wrap(model_type, method)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    before = snapshot(model)
    losses = train(model)
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    tied = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad} - trainable
    assert changed - tied <= trainable
    assert changed, "nothing was trained"


@every_architecture
@every_method
def test_disabled_adapter_is_the_base_bit_for_bit(model_type, method):
    expected = logits(base_model(model_type))
    model = wrap(model_type, method)
    train(model)
    tuned = logits(model)
    assert not torch.equal(tuned, expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), tuned)


@every_architecture
@every_method
def test_unload_gives_the_base_weights_back(model_type, method):
    expected = snapshot(base_model(model_type))
    model = wrap(model_type, method)
    train(model, steps=2)
    restored = model.unload().state_dict()
    assert restored.keys() == expected.keys()
    assert all(torch.equal(restored[name], tensor) for name, tensor in expected.items())


@every_architecture
@every_method
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_reloaded_adapter_gives_equal_logits(model_type, method, low_cpu_mem_usage, tmp_path):
    model = wrap(model_type, method)
    train(model, steps=3)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base_model(model_type), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(again), expected)
    assert again.get_nb_trainable_parameters()[0] == 0
    trained_on = PeftModel.from_pretrained(base_model(model_type), tmp_path, is_trainable=True)
    assert trained_on.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()


@every_architecture
@pytest.mark.parametrize("method", MERGEABLE)
def test_merged_model_gives_the_same_logits(model_type, method, recwarn):
    model = wrap(model_type, method)
    train(model)
    expected = logits(model)
    merged = model.merge_and_unload(safe_merge=True)
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)


@every_architecture
@pytest.mark.parametrize("method", [m for m in MERGEABLE if m != "full"])
def test_unmerging_brings_the_base_back_bit_for_bit(model_type, method, recwarn):
    model = wrap(model_type, method)
    train(model, steps=3)
    tuned, before = logits(model), snapshot(model)
    model.merge_adapter()
    assert torch.equal(logits(model), tuned)
    model.unmerge_adapter()
    after = snapshot(model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("method", [m for m in SETTINGS if m.startswith("adapter")])
def test_bottleneck_adapters_refuse_to_merge(method):
    model = wrap("qwen2", method)
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(ValueError, match="nonlinear"):
            merge()
    assert torch.equal(logits(model), logits(base_model("qwen2")))


@every_architecture
@every_method
def test_gradient_checkpointing_leaves_gradients_equal(model_type, method):
    def gradients(checkpointing):
        model = wrap(model_type, method)
        train(model, steps=2)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(3)
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


@every_architecture
@pytest.mark.parametrize("method", SEVERAL)
def test_two_adapters_on_one_base(model_type, method, tmp_path):
    model = wrap(model_type, method)
    base = logits(model)
    train(model, steps=2)
    first = logits(model)
    model.add_adapter("second", setting(method))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    assert torch.equal(logits(model), base)
    train(model, steps=3)
    second = logits(model)
    assert not torch.equal(second, first)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)

    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base_model(model_type), tmp_path)
    again.load_adapter(tmp_path / "second", "other")
    assert torch.equal(logits(again), first)
    again.set_adapter("other")
    assert torch.equal(logits(again), second)

    model.delete_adapter("default")
    model.set_adapter("second")
    assert torch.equal(logits(model), second)


@every_architecture
@every_method
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_counts_without_weights(model_type, method, low_cpu_mem_usage):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape(model_type))
    counted = get_peft_model(model, setting(method), low_cpu_mem_usage=low_cpu_mem_usage)
    assert all(p.is_meta for p in counted.parameters())
    real = wrap(model_type, method)
    assert counted.get_nb_trainable_parameters() == real.get_nb_trainable_parameters()


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_base(method, dtype, autocast, tmp_path):
    base = base_model("qwen2", dtype=dtype)
    expected = logits(base)
    model = get_peft_model(base, setting(method), autocast_adapter_dtype=autocast).eval()
    assert torch.equal(logits(model), expected)
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained == {torch.float32 if autocast and method != "full" else dtype}
    perturb(model)
    tuned = logits(model)
    assert tuned.dtype == dtype
    assert torch.isfinite(tuned).all()
    assert not torch.equal(tuned, expected)
    model.save_pretrained(tmp_path)
    for low in (False, True):
        again = PeftModel.from_pretrained(
            base_model("qwen2", dtype=dtype),
            tmp_path,
            autocast_adapter_dtype=autocast,
            low_cpu_mem_usage=low,
        )
        assert torch.equal(logits(again), tuned)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    if method in MERGEABLE:
        assert torch.equal(logits(model.merge_and_unload()), tuned)


@pytest.mark.slow
def test_reloads_in_a_fresh_process(tmp_path):
    base = base_model("llama")
    base.save_pretrained(tmp_path / "base")
    runs = {}
    for method in SETTINGS:
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), setting(method)).eval()
        train(model, steps=2)
        model.save_pretrained(tmp_path / method)
        runs[method] = logits(model)
    code = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForCausalLM
import harness.tuners
harness.tuners.register()
folder, methods = Path(sys.argv[1]), sys.argv[2:]
out = {}
for method in methods:
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    model = PeftModel.from_pretrained(base, folder / method)
    with torch.no_grad():
        out[method] = model(torch.load(folder / "ids.pt")).logits
torch.save(out, folder / "logits.pt")
"""
    torch.save(tokens(), tmp_path / "ids.pt")
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *runs], cwd=ROOT, check=True)
    again = torch.load(tmp_path / "logits.pt")
    assert all(torch.equal(again[method], expected) for method, expected in runs.items())


@every_method
def test_saved_configuration_is_plain_json_and_comes_back_equal(method, tmp_path):
    config = setting(method)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == config.peft_type.value
    assert PeftConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize("method", ["adapter_houlsby", "bitfit", "partial_layers", "diff_pruning"])
def test_saved_file_holds_the_adapter_only(method):
    model = wrap("qwen2", method)
    saved = sum(tensor.numel() for tensor in get_peft_model_state_dict(model).values())
    assert saved == model.get_nb_trainable_parameters()[0]


@every_method
def test_reloaded_adapter_generates_the_same_text(method, tmp_path):
    model = wrap("qwen2", method)
    train(model)
    prompt = {"input_ids": tokens(), "attention_mask": torch.ones_like(tokens())}
    expected = model.generate(**prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base_model("qwen2"), tmp_path)
    text = again.generate(**prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(text, expected)


@every_method
def test_new_classifier_is_trained_and_saved_with_the_adapter(method, tmp_path):
    def classifier():
        torch.manual_seed(0)
        config = shape("llama")
        config.num_labels = 3
        config.pad_token_id = 0
        return AutoModelForSequenceClassification.from_config(config).eval()

    model = get_peft_model(classifier(), setting(method, task_type="SEQ_CLS"))
    assert any("score" in name for name, p in model.named_parameters() if p.requires_grad)
    perturb(model)
    model.eval()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(classifier(), tmp_path)
    assert torch.equal(logits(again), logits(model))
