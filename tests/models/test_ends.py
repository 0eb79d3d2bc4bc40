"""Where a model's answers end."""

from types import SimpleNamespace

import pytest

from harness.models.ends import end_ids, stops_for
from tests.support.data_cases import CHATML, byte_tokenizer


def model(of_generation=None, of_config=None):
    return SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=of_generation),
        config=SimpleNamespace(eos_token_id=of_config),
    )


def chat_tokenizer():
    tokenizer = byte_tokenizer(eos="<eos>", chat_template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    return tokenizer


@pytest.mark.parametrize(
    ("of_generation", "of_config", "own"),
    [(7, None, [7]), ([7, 9], 8, [7, 9]), (None, [8], [8]), (None, None, [])],
)
def test_generation_stops_at_every_end_that_model_and_tokenizer_name(of_generation, of_config, own):
    tokenizer = byte_tokenizer()
    assert end_ids(model(of_generation, of_config), tokenizer) == tuple(sorted([*own, tokenizer.eos_token_id]))


def test_the_end_of_turn_of_the_chat_template_is_an_end_whatever_the_template_of_the_run():
    tokenizer = chat_tokenizer()
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert set(end_ids(model(), tokenizer)) == ends


def test_an_end_that_the_outputs_use_as_content_does_not_stop_them():
    tokenizer = chat_tokenizer()
    trained, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    calls = [(1, turn, 2)] * 5
    found = stops_for((trained, turn), trained, calls, tokenizer)
    assert found.ids == (trained,)
    assert "does not stop at <|im_end|>: it is content of 5 of 5 outputs" in found.notes[0]
    plain = stops_for((trained, turn), trained, [(1, 2)] * 5, tokenizer)
    assert (set(plain.ids), plain.notes) == ({trained, turn}, ())


def test_one_odd_output_does_not_let_every_answer_run_on():
    tokenizer = chat_tokenizer()
    trained, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = stops_for((trained, turn), trained, [(1, turn, 2)] + [(1, 2)] * 50, tokenizer)
    assert set(found.ids) == {trained, turn}
    assert "stops at <|im_end|>, though 1 of 51 outputs go on after it" in found.notes[0]
