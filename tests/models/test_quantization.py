"""A base in 4 or 8 bits: trained on, saved, loaded again, never changed; refused where its numbers are needed."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig

from harness.adapters import save_load
from harness.config.schema import Quantization
from harness.errors import ConfigFault, ModelFault
from harness.models import base as model_base
from harness.models import quantization
from harness.models.counts import count
from tests.support.paths import ROOT
from tests.support.runs import command, logits_of, overrides, plan_of, prepared, records_of, write_rows

pytest.importorskip("bitsandbytes")
KINDS = ("nf4", "int8")
REFUSED = ("full", "partial", "diff_pruning", "loha", "hra", "library")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), train_rows=8, others=4)


def quantized(model, *words):
    """A base model of its own, so that no other test sees what happens to it."""
    return model_base.load_base(plan_of(f"model.path={model}", *words)[0].model)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_learns_on_a_quantized_base_and_is_the_same_when_loaded_again(kind, random_qwen2, rows, tmp_path):
    words = (f"model.quantization={kind}", "trainer.max_steps=12", "trainer.learning_rate=2e-2")
    ready = prepared(random_qwen2, rows, tmp_path, *words, base=quantized(random_qwen2, *words))
    kept = model_base.fingerprint_weights(ready.base.model)
    before = logits_of(ready.base.model, ready.rows.splits["test"])
    assert torch.equal(before, logits_of(ready.model, ready.rows.splits["test"]))  # LoRA starts as the base
    done = ready.train(tmp_path / "scratch")
    assert done.curve[-1]["loss"] < done.curve[0]["loss"] - 0.1
    after = logits_of(ready.model, ready.rows.splits["test"])
    assert not torch.allclose(before, after, atol=1e-2)
    save_load.save_adapter(
        lambda folder: ready.model.save_pretrained(str(folder)), tmp_path / "adapter", ready.plan, ready.model
    )
    again = save_load.load_adapter(model_base.fork(ready.base, False), tmp_path / "adapter", ready.plan)
    assert torch.equal(logits_of(again, ready.rows.splits["test"]), after)
    assert torch.equal(logits_of(ready.base.model, ready.rows.splits["test"]), before)
    assert model_base.fingerprint_weights(ready.base.model) == kept


def test_answers_leave_a_base_that_computes_in_half_precision_as_it_was(random_qwen2, rows, tmp_path):
    # bitsandbytes casts the biases of 4-bit layers in place, and these belong to every fork.
    words = ("model.quantization=nf4", "model.dtype=bfloat16")
    ready = prepared(random_qwen2, rows, tmp_path, *words, base=quantized(random_qwen2, *words))
    kept = model_base.fingerprint_weights(ready.base.model)
    logits_of(ready.base.model, ready.rows.splits["test"])
    assert model_base.fingerprint_weights(ready.base.model) == kept


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_base_is_smaller_counts_the_same_and_is_shared_by_forks(kind, random_qwen2):
    whole = model_base.load_base(plan_of(f"model.path={random_qwen2}")[0].model)
    base = model_base.load_base(plan_of(f"model.path={random_qwen2}", f"model.quantization={kind}")[0].model)
    assert quantization.storage_bytes(base.model) < quantization.storage_bytes(whole.model)
    assert count(base.model).total == count(whole.model).total
    fork = model_base.fork(base, private_weights=False)
    mine, theirs = (net.model.layers[0].mlp.up_proj for net in (base.model, fork))
    assert theirs.weight is not mine.weight
    assert theirs.weight.data.data_ptr() == mine.weight.data.data_ptr()
    assert model_base.fingerprint_weights(fork) == model_base.fingerprint_weights(base.model)
    ids = torch.arange(8)[None]
    with torch.no_grad():  # the fork answers first: a layer's first call moves its statistics
        assert torch.equal(fork(ids).logits, base.model(ids).logits)
    assert model_base.fingerprint_weights(fork) == model_base.fingerprint_weights(base.model)


def test_whole_run_on_a_quantized_base_records_its_memory(random_qwen2, rows, tmp_path):
    result = command(*overrides(random_qwen2, rows, tmp_path), "model.quantization=nf4", "peft=ia3")
    assert result.code == 0, result.err
    [kept] = records_of(tmp_path).values()
    expected = model_base.load_base(plan_of(f"model.path={random_qwen2}", "model.quantization=nf4")[0].model)
    assert kept["memory_bytes"]["base"] == quantization.storage_bytes(expected.model)
    assert not [note for note in kept["notes"] if "changed weights" in note]


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_need_the_weights_are_refused_before_anything_is_loaded(method, weightless):
    words = [f"model.path={weightless}", f"peft={method}", "model.quantization=nf4"]
    words += ["library.type=hra"] if method == "library" else []
    reason = "takes its sizes" if method == "loha" else "needs unquantized base weights"
    with pytest.raises(ConfigFault, match=rf"peft={method} .*{reason}\b.* model.quantization=nf4"):
        plan_of(*words)


def test_what_four_bits_refuse_eight_may_take(weightless):
    assert plan_of(f"model.path={weightless}", "peft=lokr", "model.quantization=int8")
    with pytest.raises(ConfigFault, match=r"peft=lokr takes its sizes .* model\.quantization=nf4"):
        plan_of(f"model.path={weightless}", "peft=lokr", "model.quantization=nf4")


def test_initializations_from_the_weights_are_refused(weightless):
    with pytest.raises(ConfigFault, match=r"lora\.init_lora_weights=pissa needs unquantized base weights"):
        plan_of(f"model.path={weightless}", "lora.init_lora_weights=pissa", "model.quantization=int8")


def test_refusal_loads_no_torch(weightless):
    words = [f"model.path={weightless}", "peft=full", "model.quantization=int8"]
    code = (
        "import sys\nfrom harness.plan.read import read_config\nfrom tests.support.configs import compose\n"
        f"try: read_config(compose(*{words!r}))\n"
        "except Exception as e: assert 'needs unquantized base weights' in str(e), e\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, cwd=ROOT)


def test_unused_setting_leaves_the_fingerprint_and_a_used_one_changes_it(weightless):
    plain, nf4 = (plan_of(f"model.path={weightless}", f"model.quantization={kind}")[0] for kind in ("none", "nf4"))
    assert plain.fingerprint != nf4.fingerprint
    assert plain.protocol != nf4.protocol  # another baseline


def test_missing_bitsandbytes_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFault, match=r"model.quantization=nf4 needs bitsandbytes.*peft-harness\[quant\]"):
        quantization.require_bitsandbytes(Quantization.nf4)


def test_quantized_checkpoint_is_not_quantized_again(random_qwen2, tmp_path):
    base = model_base.load_base(plan_of(f"model.path={random_qwen2}", "model.quantization=nf4")[0].model)
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).quantization_config
    again = model_base.load_base(plan_of(f"model.path={tmp_path}")[0].model)
    assert "the checkpoint of the base is quantized" in again.notes
    assert model_base.fingerprint_weights(again.model) == model_base.fingerprint_weights(base.model)
    with pytest.raises(ModelFault, match=r"set model\.quantization=none"):
        model_base.load_base(plan_of(f"model.path={tmp_path}", "model.quantization=int8")[0].model)
