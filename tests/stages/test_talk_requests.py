"""What a page may ask: each field by its name."""

import json

import pytest

from harness.stages.talk_requests import Question, Refused, read_question

ASKED = {"speaker": "base", "manner": "0123456789ab", "turns": ["a", "b", "c"], "instruction": "Say", "seed": 2**63 - 1}


def test_a_question_is_read_as_it_was_asked():
    generation = {"max_new_tokens": 5, "do_sample": True, "temperature": 1, "top_p": 0.5}
    found = read_question(json.dumps(ASKED | {"generation": generation}).encode())
    assert found == Question("base", "0123456789ab", ("a", "b", "c"), "Say", 2**63 - 1, generation)


def test_instruction_seed_and_decoding_may_be_left_out():
    found = read_question(json.dumps({"speaker": "base", "manner": "x", "turns": ["a"]}).encode())
    assert (found.instruction, found.seed, found.generation) == ("", 0, {})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not an object"),
        ({"turns": []}, "an odd number of texts"),
        ({"turns": ["a", "b"]}, "an odd number of texts"),
        ({"turns": ["a"] * 1001}, "an odd number of texts"),
        ({"turns": [3]}, "turns[0]: a text"),
        ({"turns": ["  "]}, "the last one is empty"),
        ({"turns": ["\ud800"]}, "half a character"),
        ({"speaker": None}, "speaker: a text"),
        ({"instruction": 3}, "instruction: a text"),
        ({"seed": -1}, "seed: a whole number"),
        ({"seed": True}, "seed: a whole number"),
        ({"generation": {"beams": 3}}, "generation: an object"),
        ({"generation": {"max_new_tokens": 0}}, "max_new_tokens: a whole number"),
        ({"generation": {"max_new_tokens": 1.5}}, "max_new_tokens: a whole number"),
        ({"generation": {"temperature": 0}}, "temperature: a number"),
        ({"generation": {"top_p": float("nan")}}, "top_p: a number"),
        ({"generation": {"do_sample": "yes"}}, "do_sample: true or false"),
    ],
)
def test_requests_that_make_no_sense_are_refused_by_name(body, said):
    with pytest.raises(Refused, match=said.replace("[", r"\[")) as raised:
        read_question(body if isinstance(body, bytes) else json.dumps(ASKED | body).encode())
    assert raised.value.status == 400
