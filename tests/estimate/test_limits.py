"""Rows beyond the model's positions, tokens without an embedding, and head layouts that a method cannot serve."""

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import ModelFault
from harness.estimate.parameters import count_trainable
from harness.estimate.plan_counter import PlanCounter
from tests.support.paths import ROOT
from tests.support.runs import command, plan_of

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def folder(place: Path, **changes: object) -> Path:
    """The embedded tokenizer beside the configuration of another model."""
    place.mkdir()
    for file in (ROOT / "data" / "tiny").glob("*token*"):
        shutil.copy(file, place)
    vocabulary = json.loads((ROOT / "data" / "tiny" / "config.json").read_text())["vocab_size"]
    (place / "config.json").write_text(json.dumps({"vocab_size": vocabulary, **changes}))
    return place


def refusal(place: Path, *words: str) -> str:
    with pytest.raises(ModelFault) as caught:
        PlanCounter().count(plan_of("model=hub", "model.source=folder", f"model.path={place}", *words)[0])
    return str(caught.value)


def test_rows_and_answers_beyond_the_positions_are_refused(tmp_path):
    said = refusal(folder(tmp_path / "gpt2", **GPT2), "scoring.generation.max_new_tokens=8")
    assert "data.max_tokens=128 + scoring.generation.max_new_tokens=8 is 136 positions" in said
    assert "the model has n_positions=64; set data.max_tokens=56 or less" in said


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"])
def test_virtual_tokens_count_as_positions(method, tmp_path):
    place, words = folder(tmp_path / "gpt2", **GPT2), ("scoring.generation.max_new_tokens=8", f"peft={method}")
    said = refusal(place, *words, "data.max_tokens=56")
    assert f"{method}.num_virtual_tokens=20" in said
    assert "set data.max_tokens=36 or less" in said
    fitting = plan_of("model=hub", "model.source=folder", f"model.path={place}", *words, "data.max_tokens=36")[0]
    assert PlanCounter().count(fitting).trainable


def test_a_rotary_model_is_refused_only_beyond_its_stated_window(tmp_path):
    shape = {"model_type": "llama", **LLAMA, "max_position_embeddings": 256}
    place = folder(tmp_path / "llama", **shape)
    assert "max_position_embeddings=256" in refusal(place, "data.max_tokens=256")
    assert PlanCounter().count(plan_of("model=hub", "model.source=folder", f"model.path={place}")[0]).trainable


def test_without_answers_only_rows_count(tmp_path):
    words = ("model=hub", "model.source=folder", f"model.path={folder(tmp_path / 'gpt2', **GPT2)}")
    assert PlanCounter().count(plan_of(*words, "data.max_tokens=64", "scoring.metrics=[]")[0]).trainable


def test_a_vocabulary_beyond_the_embeddings_is_refused(tmp_path):
    said = refusal(folder(tmp_path / "small", **(GPT2 | {"n_positions": 512, "vocab_size": 100})))
    assert "its embeddings end at 99 (vocab_size=100)" in said


@pytest.mark.parametrize(
    ("kind", "method"), [("falcon", "prefix_tuning"), ("falcon", "p_tuning_v2"), ("llama", "llama_adapter")]
)
def test_heads_that_a_method_cannot_serve_are_refused(kind, method):
    shape = {"model_type": kind, "vocab_size": 64, **LLAMA}
    shape |= {"multi_query": True} if kind == "falcon" else {"head_dim": 16}
    with pytest.raises(ModelFault, match=f"peft={method} does not fit this model: its attention heads are not laid"):
        count_trainable(shape, method, {})


def test_stage_plan_refuses_what_a_run_would(tmp_path):
    place = folder(tmp_path / "gpt2", **GPT2)
    words = ("model=hub", "model.source=folder", f"model.path={place}", f"runs_dir={tmp_path / 'runs'}")
    found = command("stage=plan", *words)
    assert found.code == 2
    assert "n_positions=64" in found.err
