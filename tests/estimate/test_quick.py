"""Counts by formula are those of the built model, and whatever a formula does not know is left to that."""

import json
import shutil
import subprocess
import sys

import pytest

from harness.errors import ModelFault
from harness.estimate import parameters, quick
from harness.estimate.plan_counter import PlanCounter
from harness.methods.registry import METHODS
from tests.support.paths import ROOT
from tests.support.runs import plan_of

SIZES = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 1024,
}  # fmt: skip
CONFIGS = {
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, **SIZES},
    "qwen2 untied": {"model_type": "qwen2", "tie_word_embeddings": False, **SIZES},
    "llama": {"model_type": "llama", "tie_word_embeddings": False, **SIZES},
    "llama biased": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
        **SIZES,
    },
    "llama wide heads": {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 16, **SIZES},
}
WORDS = {
    "lora_fa": ("peft=lora", "lora.lora_fa=true", "lora.target_modules=[q_proj,down_proj]"),
    "rslora": ("peft=lora", "lora.use_rslora=true", "lora.r=3", "lora.init_lora_weights=gaussian"),
    "some": ("peft=loha", "loha.target_modules=[v_proj]", "loha.r=5"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory, random_qwen2):
    """A folder with this configuration and a real tokenizer, and no weights."""

    def made(name: str, **changes: object):
        folder = tmp_path_factory.mktemp("model")
        for file in random_qwen2.glob("token*"):
            shutil.copy(file, folder)
        (folder / "config.json").write_text(json.dumps(CONFIGS[name] | changes))
        return folder

    return made


def plan(folder, *words):
    return plan_of(f"model.path={folder}", "data.max_tokens=64", "scoring.metrics=[]", *words)[0]


def built(one):
    return parameters.count_plan(one, parameters.checked_config(one))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("words", [*((f"peft={method}",) for method in quick.FORMULAS), *WORDS.values()], ids=str)
def test_a_formula_is_the_count_of_the_built_model(model, name, words):
    one = plan(model(name), *words)
    found = quick.count(one)
    if found is None:  # heads that PEFT does not expect
        assert (name, words) == ("llama wide heads", ("peft=p_tuning_v2",))
        return
    assert found == built(one)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_counted_alike_or_left_to_the_built_model(model, method):
    one = plan(model("qwen2"), f"peft={method}", *(["library.type=lora"] if method == "library" else []))
    found = quick.count(one)
    assert (found is not None) == (method in quick.FORMULAS)
    if found is not None:
        assert found == built(one)


@pytest.mark.parametrize(
    "words",
    [
        ("lora.use_dora=true",),
        ("lora.init_lora_weights=pissa",),
        ("lora.bias=all",),
        ("+lora.rank_pattern={q_proj: 4}",),
        ("lora.exclude_modules=[q_proj]",),
        ("lora.layers_to_transform=[0]", "lora.target_modules=[q_proj,v_proj]"),
        ("lora.modules_to_save=[lm_head]",),
        ("lora.target_modules=.*q_proj",),
        ("model.quantization=nf4",),
        ("peft=ia3", "ia3.target_modules=[q_proj]"),
        ("peft=full", "full.keep_base=true"),
    ],
    ids=str,
)
def test_settings_that_a_formula_does_not_know_are_left_to_the_built_model(model, words):
    assert quick.count(plan(model("qwen2"), *words)) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lora.r=49",), "lora.r=49 exceeds the hidden size 48"),
        (("lora.target_modules=[q_proj,qproj]",), "qproj matches no"),
        (("data.max_tokens=2000",), "max_position_embeddings=1024"),
    ],
)
def test_faults_are_said_by_the_built_model(model, words, message):
    one = plan(model("qwen2"), *words)
    assert quick.count(one) is None
    with pytest.raises(ModelFault, match=message):
        PlanCounter().count(one)


@pytest.mark.parametrize(
    "changes", [{"num_key_value_heads": None}, {"model_type": "gpt2"}, {"tie_word_embeddings": None}, {"vocab_size": 4}]
)
def test_a_configuration_that_leaves_something_open_is_left_to_transformers(model, changes):
    assert quick.count(plan(model("qwen2", **changes))) is None


def test_without_a_tokenizer_that_can_be_read_here_nothing_is_said(model):
    folder = model("qwen2")
    (folder / "tokenizer.json").write_text("[")
    assert quick.count(plan(folder)) is None


@pytest.mark.slow
def test_six_cells_are_planned_without_torch(tmp_path):
    code = (
        "import sys\nfrom harness.__main__ import main\ntry:\n    main()\nfinally:\n"
        "    print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    words = ["-m", "peft=lora,ia3", "lora.r=4,8,16", "stage=plan", f"runs_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "49,664" in done.stdout
    assert "198,656" in done.stdout
    assert "3,072" in done.stdout
