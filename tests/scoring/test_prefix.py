"""The shared start of prompts, and which models may read a text in parts."""

from types import SimpleNamespace

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from harness.scoring.prefix import reads_in_parts, sees, shared_prefix
from tests.support import method_cases as cases

SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("rows", "at_most", "length"),
    [
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], 9, 5),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], 4, 4),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 5, 6]], 9, 0),  # too short to pay
        ([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], 4, 4),  # equal rows keep a token to read
        ([[1, 2, 3, 4], [1, 2, 3, 4, 5]], 9, 4),
        ([[1, 2, 3, 4, 5]], 4, 0),  # one row shares with none
        ([], 4, 0),
    ],
)
def test_the_shared_start_is_what_all_rows_begin_with(rows, at_most, length):
    assert shared_prefix(rows, at_most) == length
    assert shared_prefix(rows[::-1], at_most) == length


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 10**6),
        ({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512}, 512),
        ({"layer_types": ["full_attention"], "sliding_window": 512}, 10**6),
        ({"sliding_window": 4096}, 4096),
        ({"sliding_window": 4096, "use_sliding_window": False}, 10**6),
        ({"layer_types": ["linear_attention", "full_attention"]}, 0),
        ({"attention_chunk_size": 8192}, 0),
    ],
)
def test_a_model_sees_texts_up_to_its_window(settings, length):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**settings))
    assert not length or sees(config, length)
    assert length == 10**6 or not sees(config, length + 1)


def made(kind: str, **settings):
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **settings}))


def test_models_whose_state_or_positions_depend_on_more_than_the_tokens_before_are_read_whole():
    assert reads_in_parts(made("llama", **ATTENTION), 100)
    assert not reads_in_parts(made("rwkv", attention_hidden_size=32, intermediate_size=48, context_length=64), 100)
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 50}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, **factors}
    sizes = {"max_position_embeddings": 200, "original_max_position_embeddings": 50}
    assert not reads_in_parts(made("phi3", rope_parameters=rope, **sizes, **ATTENTION), 100)
    windowed = made("mistral", sliding_window=64, **ATTENTION)
    assert reads_in_parts(windowed, 64)
    assert not reads_in_parts(windowed, 65)


@pytest.mark.parametrize("case", ["prompt_tuning", "prefix_tuning", "cpt", "llama_adapter", "library:cartridge"])
def test_methods_that_keep_something_in_the_cache_are_read_whole(case):
    assert not reads_in_parts(cases.trained(case, "qwen2").model, 30)


def test_what_is_no_model_of_transformers_is_read_whole():
    assert not reads_in_parts(SimpleNamespace(), 30)
