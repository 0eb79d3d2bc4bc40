"""Names of modules in a method's settings: one that matches nothing is refused with the names it may mean."""

from __future__ import annotations

import pytest
import torch

from harness.adapters.attach import attach
from harness.errors import ModelFault
from tests.support.method_cases import context, parts
from tests.support.tuners_models import base_model


def refusal(case: str, kind: str = "qwen2", **changes: object) -> str:
    method, settings, _ = parts(case)
    with torch.device("meta"):
        model = base_model(kind)
    with pytest.raises(ModelFault) as caught:
        attach(model, method, settings | changes, context())
    return str(caught.value)


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("lora", {"target_modules": ["q_proj", "v_porj"]},
         "lora.target_modules=[q_proj,v_porj]: v_porj matches no module of this model; did you mean v_proj"),
        ("oft", {"target_modules": ["q_proj", "nope"]}, "oft.target_modules=[q_proj,nope]: nope matches no module"),
        ("ia3", {"target_modules": ["k_proj", "v_porj"], "feedforward_modules": []}, "v_porj matches no module"),
        ("ln_tuning", {"target_modules": ["input_layernorm", "post_layernorm"]}, "post_layernorm matches no module"),
        ("adapter", {"target_modules": ["o_proj", "down_porj"]}, "did you mean down_proj"),
        ("lora", {"target_modules": "q_proj"}, "write a list: lora.target_modules=[q_proj]"),
        ("lora", {"target_modules": r".*\.(q|v)_porj"}, "matches no module of this model"),
        ("lora", {"exclude_modules": ["v_porj"]}, "lora.exclude_modules=[v_porj]: v_porj matches no layer"),
        ("lora", {"exclude_modules": ["mlp"]}, "mlp matches no layer of this model"),
        ("lora", {"target_modules": ["q_proj"], "layers_to_transform": [0, 99]},
         "lora.layers_to_transform=[0,99]: this model has no layer 99; its layers are 0 to 1"),
        ("lora", {"modules_to_save": ["nonexistent"]}, "lora.modules_to_save=[nonexistent]: nonexistent matches no"),
        ("lora", {"modules_to_save": ["head"]}, "did you mean lm_head?"),
        ("partial", {"modules": ["q_proj", "nope"], "last_layers": None}, "partial.modules=[q_proj,nope]: nope"),
        ("bitfit", {"modules": ["q_proj", "nope"]}, "bitfit.modules=[q_proj,nope]: nope matches no module"),
        ("bitfit", {"modules": ["q_proj", "o_proj"], "add_missing": False}, "o_proj matches no module with a bias"),
        ("diff_pruning", {"modules": ["q_proj", "nope"]}, "diff_pruning.modules=[q_proj,nope]: nope matches"),
        ("ia3", {"feedforward_modules": ["down_porj"]},
         "ia3.feedforward_modules=[down_porj]: down_porj matches no targeted layer of this model; did you mean down"),
        ("lora", {"rank_pattern": {"q_porj": 64}}, "lora.rank_pattern.q_porj matches no targeted layer"),
        ("lora", {"target_modules": ["v_proj"], "alpha_pattern": {"q_proj": 64}}, "lora.alpha_pattern.q_proj matches"),
        ("fourierft", {"n_frequency_pattern": {"q_porj": 10}}, "fourierft.n_frequency_pattern.q_porj matches no"),
        ("c3a", {"block_size_pattern": {"q_porj": 8}}, "c3a.block_size_pattern.q_porj matches no targeted layer"),
        ("trainable_tokens", {"token_indices": [3, 61]}, "token 61 is outside the model's vocabulary; its tokens are"),
        ("library:delora", {"settings": {"target_modules": ["q_proj", "v_porj"]}}, "did you mean v_proj"),
    ],
)  # fmt: skip
def test_a_name_that_matches_nothing_is_refused(case, changes, said):
    assert said in refusal(case, **changes)


def test_all_strays_are_listed_together():
    found = refusal("lora", target_modules=["q_porj", "v_porj", "k_proj"], modules_to_save=["hed"])
    assert [line.partition(" matches")[0].rpartition(" ")[2] for line in found.splitlines()] == [
        "q_porj", "v_porj", "hed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("lora", {"target_modules": ["q_proj", "layers.1.mlp.up_proj"]}),
        ("lora", {"target_modules": r".*\.(q|v)_proj"}),
        ("lora", {"rank_pattern": {r"layers\.0\..*": 2}, "exclude_modules": ["lm_head", "down_proj"]}),
        ("partial", {"modules": ["norm", "self_attn"], "last_layers": None}),
        ("diff_pruning", {"modules": "all-linear"}),
        ("trainable_tokens", {"target_modules": ["embed_tokens"], "token_indices": [3, 60]}),
        ("llama_adapter", {"target_modules": "self_attn"}),
    ],
)
def test_names_that_match_are_accepted(case, changes):
    method, settings, _ = parts(case)
    with torch.device("meta"):
        model = base_model("llama")
    attach(model, method, settings | changes, context())


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("ia3", "set ia3.target_modules=[qkv_proj,down_proj] ia3.feedforward_modules=[down_proj]"),
        ("ln_tuning", "set ln_tuning.target_modules=[input_layernorm,norm,post_attention_layernorm]"),
    ],
)
def test_a_missing_default_names_what_to_set(case, said):
    assert said in refusal(case, "phi3")


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("ia3", {"target_modules": ["qkv_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
        ("ln_tuning", {"target_modules": ["input_layernorm", "norm", "post_attention_layernorm"]}),
    ],
)
def test_what_that_message_advises_works(case, changes):
    method, settings, _ = parts(case)
    with torch.device("meta"):
        model = base_model("phi3")
    attach(model, method, settings | changes, context())
