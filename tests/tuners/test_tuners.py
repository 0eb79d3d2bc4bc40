"""The tuners that harness adds to PEFT keep PEFT's contract, on four architectures; then each on its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import get_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import harness.tuners
from harness.tuners.adapter import LOCATIONS, AdapterConfig
from harness.tuners.bitfit import BitFitConfig
from harness.tuners.diff_layer import DiffPruningConfig, hard_concrete
from harness.tuners.full import FullConfig
from harness.tuners.partial import PartialConfig
from tests.support.paths import ROOT
from tests.support.tuners_models import (
    MAIN,
    SETTINGS,
    SHAPES,
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
REPO = ROOT

every_architecture = pytest.mark.parametrize("model_type", MAIN)
every_method = pytest.mark.parametrize("method", SETTINGS)


# ---------------------------------------------------------------- registration


def test_register_twice_changes_nothing():
    harness.tuners.register()
    before = dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType)
    harness.tuners.register()
    assert before == (dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType))
    assert PeftType("BITFIT") is PeftType["BITFIT"] is PeftType.BITFIT
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.BITFIT] is BitFitConfig


def test_register_refuses_a_name_that_peft_has_taken(monkeypatch):
    monkeypatch.setitem(harness.tuners.TUNERS, "LORA", ("bitfit", "BitFitConfig", "BitFitModel"))
    with pytest.raises(RuntimeError, match="already has a method LORA"):
        harness.tuners.register()


def test_importing_the_package_imports_neither_torch_nor_peft():
    code = "import sys, harness.tuners; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


# ---------------------------------------------------------------- what every method keeps


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
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *runs], cwd=REPO, check=True)
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


# ---------------------------------------------------------------- adapters


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set exactly one"),
        ({"bottleneck_size": 4, "reduction_factor": 2}, "set exactly one"),
        ({"bottleneck_size": 0}, r"adapter\.bottleneck_size=0 must be at least 1"),
        ({"bottleneck_size": 4, "placement": "serial"}, r"adapter\.placement=serial must be one of"),
        ({"bottleneck_size": 4, "activation": "sine"}, r"adapter\.activation=sine must be one of"),
        ({"bottleneck_size": 4, "init_std": -1.0}, r"adapter\.init_std"),
    ],
)
def test_adapter_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**settings)


@pytest.mark.parametrize(("first", "second"), [("houlsby", "parallel"), ("parallel", "houlsby")])
def test_adapters_that_would_nest_are_refused(first, second):
    model = get_peft_model(base_model("llama"), AdapterConfig(bottleneck_size=4, placement=first))
    with pytest.raises(ValueError, match=r"mlp\.down_proj lies inside .*mlp, .* same placement"):
        model.add_adapter("second", AdapterConfig(bottleneck_size=4, placement=second))


def test_reduction_factor_above_the_width():
    with pytest.raises(ValueError, match=r"adapter\.reduction_factor=64 exceeds the width 32"):
        get_peft_model(base_model("llama"), AdapterConfig(reduction_factor=64))


def test_adapter_targets_that_match_nothing():
    with pytest.raises(ValueError, match=r"adapter\.target_modules=\['nope'\] matches no module"):
        get_peft_model(base_model("llama"), AdapterConfig(bottleneck_size=4, target_modules=["nope"]))


# ---------------------------------------------------------------- BitFit


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


# ---------------------------------------------------------------- partial


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


@pytest.mark.parametrize("count", [0, 3])
def test_partial_last_layers_out_of_range(count):
    with pytest.raises(ValueError, match=rf"partial\.last_layers={count} must be 1 to 2"):
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


@pytest.mark.parametrize("method", ["partial_layers", "diff_pruning"])
def test_quantised_weights_are_refused(method):
    base = base_model("llama")
    for block in base.model.layers:
        block.mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(48, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"up_proj, whose weight is torch.int8 \(quantised\)"):
        get_peft_model(base, setting(method))


# ---------------------------------------------------------------- diff pruning


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
        for name, layer in model.base_model._layers("default").items()
    }
    report = model.base_model.project(target_sparsity=share)
    targeted = sum(diff.numel() for diff in dense.values())
    assert report.targeted == targeted
    assert report.nonzeros == int(share * targeted)
    assert report.bytes == 8 * report.nonzeros
    threshold = torch.cat([diff.abs().flatten() for diff in dense.values()]).topk(report.nonzeros).values[-1]
    for name, layer in model.base_model._layers("default").items():
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
    with pytest.raises(ValueError, match="projected already"):
        model.base_model.project()
    with pytest.raises(ValueError, match="no adapter 'other'"):
        model.base_model._layers("other")


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_sparsity": 0.0}, r"diff_pruning\.target_sparsity=0\.0"),
        ({"target_sparsity": 2.0}, r"diff_pruning\.target_sparsity=2\.0"),
        ({"l0_weight": -1.0}, r"diff_pruning\.l0_weight"),
        ({"gate_speed": 0.0}, r"diff_pruning\.gate_speed"),
        ({"stretch_lower": 0.0, "stretch_upper": 1.0}, r"stretch_lower.*; .*stretch_upper"),
    ],
)
def test_diff_pruning_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffPruningConfig(**settings)


# ---------------------------------------------------------------- full


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


def test_full_refuses_a_quantised_base():
    base = base_model("llama")
    base.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        torch.zeros(48, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ValueError, match=r"up_proj.weight, which is torch.int8 \(quantised\)"):
        get_peft_model(base, FullConfig())
