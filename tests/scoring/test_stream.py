"""An answer that is shown while it is written is the answer that scoring gives."""

from dataclasses import replace

import pytest

from harness.data.tokenize import prompt_of
from harness.scoring.decode import greedy
from harness.scoring.generate import generate
from harness.scoring.stream import Pieces, stream
from tests.support.data_cases import byte_tokenizer
from tests.support.runs import CASES, disturbed

STOPS = (2,)


def prompts_of(made):
    """Prompts that end within words, so that answers differ, and one as it is."""
    examples = made.rows.splits["train"]
    return [*(list(each.input_ids[:-1]) for each in examples[:4]), list(prompt_of(examples[0]))]


@pytest.mark.parametrize("case", ["lora", "prompt_tuning", "prefix_tuning", "ia3", "full"])
def test_streamed_tokens_are_those_of_scorings_greedy_generation(make, case):
    made = make(*CASES[case])
    model, tokenizer = disturbed(made.model), made.base.tokenizer
    generation = replace(made.plan.scoring.generation, max_new_tokens=12)
    for prompt in prompts_of(made):
        [scored] = generate(model, tokenizer, [prompt], generation, stops=STOPS, equal_lengths=True)
        pieces: list[str] = []
        streamed = stream(model, tokenizer, prompt, generation, stops=STOPS, told=pieces.append)
        assert (streamed.text, streamed.cut) == (scored.text, scored.cut)
        assert scored.text.startswith("".join(pieces))
        if case not in ("prompt_tuning", "prefix_tuning"):
            assert [list(streamed.ids)] == greedy(model, [prompt], limit=12, stops=STOPS, places=1)


def test_the_base_model_answers_as_in_scoring_and_stops_at_any_of_its_ends(make):
    made = make()
    model, tokenizer = made.base.model, made.base.tokenizer
    generation = replace(made.plan.scoring.generation, max_new_tokens=8)
    prompt = prompts_of(made)[0]
    free = stream(model, tokenizer, prompt, generation, stops=STOPS, told=lambda piece: None)
    assert free.cut
    assert len(free.ids) == 8
    last = free.ids[-1]
    ended = stream(model, tokenizer, prompt, generation, stops=(2, last), told=lambda piece: None)
    assert ended.ids == free.ids[: free.ids.index(last)]
    assert not ended.cut


def test_a_reader_who_has_enough_ends_the_answer_and_the_next_one_is_whole(make):
    made = make()
    model, tokenizer = disturbed(made.model), made.base.tokenizer
    generation = replace(made.plan.scoring.generation, max_new_tokens=12)
    prompt, pieces = prompts_of(made)[1], []
    whole = stream(model, tokenizer, prompt, generation, stops=STOPS, told=lambda piece: None)
    part = stream(model, tokenizer, prompt, generation, stops=STOPS, told=pieces.append, enough=lambda: len(pieces) > 2)
    assert part.stopped
    assert not part.cut
    assert 0 < len(part.ids) < len(whole.ids)
    assert whole.ids[: len(part.ids)] == part.ids
    with pytest.raises(ConnectionResetError):
        stream(model, tokenizer, prompt, generation, stops=STOPS, told=_gone)
    again = stream(model, tokenizer, prompt, generation, stops=STOPS, told=lambda piece: None)
    assert again.ids == whole.ids


def _gone(piece):
    raise ConnectionResetError


def test_sampled_answers_follow_the_seed(make):
    import torch

    made = make()
    generation = replace(made.plan.scoring.generation, max_new_tokens=12, do_sample=True, temperature=5.0)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(
            stream(made.base.model, made.base.tokenizer, prompts_of(made)[0], generation, stops=STOPS, told=print).ids
        )
    assert found[0] == found[1] != found[2]


def test_pieces_wait_for_whole_characters_and_show_no_space_at_the_end():
    tokenizer = byte_tokenizer()
    ids = tokenizer(" 你好  ok ", add_special_tokens=False)["input_ids"]
    pieces, found = Pieces(tokenizer), []
    for end in range(1, len(ids) + 1):
        found.append(pieces.after(ids[:end]))
    assert "".join(found) == "你好  ok"
    assert [piece for piece in found if piece] == ["你", "好", "  o", "k"]
