"""Counts without weights are those of the model that is built."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from harness.adapters.attach import attach, wrap_model
from harness.config.compose import sheet_values
from harness.errors import ModelFault
from harness.estimate import formulas
from harness.estimate.parameters import count_trainable
from harness.methods import library
from harness.methods.context import BuildContext
from harness.methods.registry import hooks_of
from harness.models.counts import Counts, count
from tests.support.method_cases import ARCHITECTURES, CASES, LIBRARY, SHEETS, batches, build, context, parts
from tests.support.paths import SHARED
from tests.support.tuners_models import base_model, shape

ADAPTER_CONFIG = SHARED / "data" / "qwen15_tokenizer" / "adapter_config.json"
# What counting takes for granted where a run looks at its rows.
GIVEN = {"lora:eva": "moves ranks between layers", "trainable_tokens": "rows hold fewer tokens"}


def config_of(kind: str) -> dict:
    return shape(kind).to_dict()


@pytest.mark.parametrize("case", [case for case in CASES if case not in GIVEN])
def test_counts_are_those_of_the_built_model(case):
    method, settings, _ = parts(case)
    model = build(case, "qwen2")
    hooks_of(method, settings).optimizer(model, settings, 1e-3, 0.0)
    assert count_trainable(config_of("qwen2"), method, settings) == trainable_of(model, case)


def trainable_of(model: torch.nn.Module, case: str) -> Counts:
    if case.partition(":")[2].upper() in formulas.TRAINED or case.upper() in formulas.TRAINED:
        base = sum(parameter.numel() for parameter in base_model("qwen2").parameters())
        trained = count(model).trainable
        return Counts(trained, base + trained)
    return count(model)


@pytest.mark.parametrize("method", SHEETS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_sheet_counts_on_every_architecture_or_says_why_not(method, kind):
    settings = {"r": 4} if method in ("lora", "miss", "shira") else {}
    try:
        counts, why = count_trainable(config_of(kind), method, settings), ""
    except ModelFault as fault:
        counts, why = None, str(fault)
    if counts is None:
        assert "does not fit this model" in why or "adapts linear layers only" in why
        return
    assert 0 < counts.trainable <= counts.total
    assert 0 < counts.share <= 1


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("FROD", {"sparse_rate": 0.05, "progressbar": False}),
        ("FROD", {"sparse_rate": 0.0, "progressbar": False}),
        ("WAVEFT", {"n_frequency": 50, "proportional_parameters": True}),
        ("WAVEFT", {"n_frequency": 50, "n_frequency_pattern": {"q_proj": 20}}),
        ("FOURIERFT", {"n_frequency": 50, "n_frequency_pattern": {"q_proj": 20}, "modules_to_save": ["lm_head"]}),
        ("BOFT", {"boft_block_size": 8}),
        ("BOFT", {"bias": "all"}),
        ("BOFT", {"bias": "boft_only"}),
        ("FOURIERFT", {"n_frequency": 50, "bias": "all", "modules_to_save": ["v_proj"]}),
        ("FOURIERFT", {"n_frequency": 50, "bias": "fourier_only"}),
        ("BOFT", {"boft_block_size": 0, "boft_block_num": 2}),
    ],
)
def test_formulas_agree_with_built_models(kind, settings):
    settings = settings | {"target_modules": ["q_proj", "v_proj", "down_proj"]}
    family = "qwen2" if "bias" in settings else "llama"  # Llama's layers have no biases
    base = base_model(family).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = wrap_model(base, library.library_types()[kind.lower()](task_type="CAUSAL_LM", **settings))
    assert count_trainable(config_of(family), kind, settings).trainable == count(model).trainable


def test_adamss_is_counted_without_scikit_learn():
    settings = {"r": 8, "num_subspaces": 3, "target_modules": "all-linear"}
    assert count_trainable(config_of("qwen2"), "ADAMSS", settings).trainable == 784  # as built, once
    with pytest.raises(ModelFault, match="use_dynamic_rank"):
        count_trainable(config_of("qwen2"), "ADAMSS", settings | {"use_dynamic_rank": True})


def test_a_formula_refuses_targets_that_match_nothing():
    with pytest.raises(ModelFault, match="nowhere matches no module of this model"):
        count_trainable(config_of("qwen2"), "fourierft", {"target_modules": ["nowhere"]})


def test_a_published_configuration_is_taken_as_it_is():
    if not ADAPTER_CONFIG.exists():
        pytest.skip(f"{ADAPTER_CONFIG} is not on this machine")
    published = json.loads(ADAPTER_CONFIG.read_text(encoding="utf-8"))
    qwen = {
        "model_type": "qwen2",
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    per_layer = 8 * (4 * (1024 + 1024) + 3 * (1024 + 2816))
    for method in ("lora", "LORA"):
        assert count_trainable(qwen, method, published).trainable == 24 * per_layer


@pytest.mark.parametrize("method", ["lora", "LORA"])
def test_a_configuration_of_another_version_of_peft_is_taken_if_what_is_unknown_is_unset(method):
    published = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}
    usual = count_trainable(config_of("qwen2"), method, published)
    unset = {"of_another_version": None, "also": {}, "too": [], "and": "", "off": False}
    assert count_trainable(config_of("qwen2"), method, published | unset) == usual
    with pytest.raises(ModelFault, match="of_another_version=3 is unknown"):
        count_trainable(config_of("qwen2"), method, published | {"of_another_version": 3})


@pytest.mark.parametrize("kind", sorted(set(library.library_types()) - set(library.REFUSED)))
def test_every_type_of_peft_counts_from_what_it_saves(kind, tmp_path):
    """The ``adapter_config.json`` that PEFT writes for a type counts what that adapter trains."""
    case = {"adaption_prompt": "llama_adapter"}.get(kind, kind)
    case = f"library:{kind}" if kind in LIBRARY else case
    if kind == "adamss":
        pytest.importorskip("sklearn", reason="AdaMSS clusters with scikit-learn")
        base = base_model("qwen2").requires_grad_(False)
        settings = {"type": "adamss", "settings": {"r": 8, "num_subspaces": 3}}
        model = attach(base, "library", settings, context())
    else:
        model = build(case, "qwen2")
    model.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    expected = count(model).trainable
    assert count_trainable(config_of("qwen2"), kind, saved).trainable == expected
    assert count_trainable(config_of("qwen2"), kind.upper(), saved).trainable == expected


def test_a_type_in_capitals_has_pefts_defaults_and_a_sheet_its_own():
    targets = {"target_modules": ["q_proj"]}
    sheet = count_trainable(config_of("llama"), "lora", targets)
    plain = count_trainable(config_of("llama"), "LORA", targets)
    assert (sheet.trainable, plain.trainable) == (2 * 16 * 64, 2 * 8 * 64)


@pytest.mark.parametrize("method", ["lora", "LORA", "p_tuning_v2", "llama_adapter", "full"])
def test_an_unknown_setting_lists_the_known_ones(method):
    with pytest.raises(ModelFault, match=rf"{method}\.rank=3 is unknown; {method} has .*"):
        count_trainable(config_of("llama"), method, {"rank": 3})


def test_an_unknown_method_or_architecture_is_refused():
    with pytest.raises(ModelFault, match="method=nonesuch is neither a sheet"):
        count_trainable(config_of("llama"), "nonesuch", {})
    with pytest.raises(ModelFault, match="names no architecture"):
        count_trainable({"model_type": "nonesuch"}, "lora", {})
    with pytest.raises(ModelFault, match="no class NoneSuch"):
        count_trainable(config_of("llama") | {"architectures": ["NoneSuch"]}, "lora", {})


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 61}


@pytest.mark.parametrize("kind", ["opt", "bloom"])
@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "prompt_tuning", "ia3", "adapter", "vera"])
def test_further_decoders_count_as_built(kind, method):
    settings = {"r": 4} if method == "lora" else {}
    base = base_model(kind).requires_grad_(False)
    values = {key: value for key, value in sheet_values(method).items() if key != "learning_rate"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = attach(base, method, values, BuildContext(10, "", 0, 32, 2, batches))
    assert count_trainable(config_of(kind), method, settings) == count(model)


@pytest.mark.parametrize("settings", [{"r": 4, "target_modules": ["q", "v"]}, {"r": 4, "target_modules": ["wo"]}])
def test_t5_counts_as_a_sequence_to_sequence_model(settings):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(base_model("t5"), LoraConfig(task_type="SEQ_2_SEQ_LM", **settings))
    assert isinstance(model.base_model.model, type(AutoModelForSeq2SeqLM.from_config(shape("t5"))))
    assert count_trainable(config_of("t5"), "LORA", settings) == count(model)


@pytest.mark.parametrize(("kind", "targets"), [("roberta", ["query", "value"]), ("deberta-v2", ["query_proj"])])
def test_encoders_count_bare_and_under_a_classifier(kind, targets):
    from peft import LoraConfig, get_peft_model

    config = AutoConfig.for_model(kind, **SMALL)
    settings = {"r": 4, "target_modules": targets}
    bare = get_peft_model(AutoModel.from_config(config), LoraConfig(**settings))
    assert count_trainable(config.to_dict(), "LORA", settings).trainable == count(bare).trainable
    under = get_peft_model(
        AutoModelForSequenceClassification.from_config(config), LoraConfig(task_type="SEQ_CLS", **settings)
    )
    named = config.to_dict() | {"architectures": [type(under.base_model.model).__name__]}
    assert count_trainable(named, "LORA", settings).trainable == count(under).trainable


def test_counting_adalora_leaves_out_its_rank_counter():
    method, settings, _ = parts("adalora")
    counted = count_trainable(config_of("qwen2"), method, settings)
    assert counted.trainable == count(build("adalora", "qwen2")).trainable


def test_counting_lora_fa_leaves_out_a():
    settings = {"r": 4, "target_modules": ["q_proj"]}
    assert count_trainable(config_of("llama"), "lora", settings | {"lora_fa": True}).trainable == 2 * 4 * 32


def test_butterfly_factors_are_counted_without_the_kernel():
    one, two = (
        count_trainable(config_of("llama"), "boft", {"boft_block_size": 4, "boft_n_butterfly_factor": factors})
        for factors in (1, 2)
    )
    outputs = 2 * (3 * 48 + 4 * 32 - 32)
    assert two.trainable - outputs == pytest.approx(2 * (one.trainable - outputs), rel=0.5)
