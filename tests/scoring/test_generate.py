"""Generated answers are those of the model alone: of no batch, no cache, no hidden preference, no other seed."""

from unittest import mock

import pytest
import torch

from harness.data.tokenize import prompt_of
from harness.methods.registry import prompt_learning
from harness.scoring.generate import answer_text, decoding_config, generate, reference_text
from tests.support.runs import CASES, disturbed, loaded, plan_of

STOPS = (2,)  # <|im_end|>, the end of text of the random model


def uncached(model, tokenizer, prompt, steps):
    """Greedy answer by whole forward passes, one prompt at a time."""
    ids = list(prompt)
    for _ in range(steps):
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=False).strip()


@pytest.mark.parametrize("case", CASES)
def test_batched_answers_are_those_of_one_prompt_at_a_time_without_a_cache(make, case):
    made = make(*CASES[case])
    model, tokenizer = disturbed(made.model), made.base.tokenizer
    # Ends within words: after a blank, a random model with tied embeddings only writes blanks.
    prompts = [list(example.input_ids[:-1]) for example in made.rows.splits["train"][:6]]
    assert len({len(prompt) for prompt in prompts}) > 2
    equal = prompt_learning(made.plan.method, made.plan.settings)
    found = generate(model, tokenizer, prompts, made.plan.scoring.generation, stops=STOPS, equal_lengths=equal)
    assert [answer.text for answer in found] == [uncached(model, tokenizer, prompt, 4) for prompt in prompts]
    assert len(set(found)) > 1
    assert all(answer.cut for answer in found)


def test_answers_come_in_the_order_of_their_prompts(make):
    made = make()
    model, tokenizer, generation = disturbed(made.model), made.base.tokenizer, made.plan.scoring.generation
    prompts = [prompt_of(example) for example in made.rows.splits["train"]]
    forwards = generate(model, tokenizer, prompts, generation, stops=STOPS, equal_lengths=False)
    backwards = generate(model, tokenizer, prompts[::-1], generation, stops=STOPS, equal_lengths=False)
    assert forwards == backwards[::-1]


def test_the_models_own_generation_config_has_no_effect(make, random_qwen2):
    made = make()
    base, generation = loaded(random_qwen2), made.plan.scoring.generation
    prompts = [prompt_of(example) for example in made.rows.splits["test"]]
    plain = generate(base.model, base.tokenizer, prompts, generation, stops=STOPS, equal_lengths=False)
    preferences = base.model.generation_config
    bent = {"repetition_penalty": 50.0, "suppress_tokens": list(range(40, 100)), "no_repeat_ngram_size": 1}
    with mock.patch.multiple(preferences, **bent):
        assert generate(base.model, base.tokenizer, prompts, generation, stops=STOPS, equal_lengths=False) == plain
        assert base.model.generation_config is preferences
        assert preferences.repetition_penalty == 50.0


def test_greedy_settings_of_sampling_are_left_out(random_qwen2, rows, tmp_path):
    made, _ = plan_of(f"model.path={random_qwen2}", "scoring.generation.do_sample=false")
    decoding = decoding_config(made.scoring.generation, loaded(random_qwen2).tokenizer, STOPS)
    assert (decoding.do_sample, decoding.top_p, decoding.temperature) == (False, None, None)


class Scripted(torch.nn.Module):
    """Writes given ids after any prompt, whatever it is asked."""

    def __init__(self, ids):
        super().__init__()
        self.weight, self.ids = torch.nn.Parameter(torch.zeros(1)), ids
        self.config = mock.Mock(dtype=torch.float32)

    def generate(self, input_ids, attention_mask, generation_config):
        new = torch.tensor([self.ids[: generation_config.max_new_tokens]] * len(input_ids))
        return mock.Mock(sequences=torch.cat([input_ids, new], dim=1))


@pytest.mark.parametrize(
    ("written", "text", "cut"),
    [
        ("ab<|im_end|>cd", "ab", False),
        ("ab<|endoftext|>cd", "ab", False),  # either end stops
        ("a<|im_start|>b<|im_end|>c", "a<|im_start|>b", False),  # other special tokens are content
        ("ab cd e", "ab cd", True),  # the limit comes before an end
        ("abcde<|im_end|>", "abcde", True),  # whole or not: nobody can tell
        (" a .<|im_end|>", "a .", False),  # no space is tidied away
    ],
)
def test_an_answer_ends_at_the_first_end_or_is_cut(random_qwen2, written, text, cut):
    tokenizer = loaded(random_qwen2).tokenizer
    made, _ = plan_of(f"model.path={random_qwen2}", "scoring.generation.max_new_tokens=5")
    model = Scripted(tokenizer(written)["input_ids"])
    [answer] = generate(model, tokenizer, [[5]], made.scoring.generation, stops=(0, 2), equal_lengths=False)
    assert (answer.text, answer.cut) == (text, cut)


def test_references_keep_their_special_tokens_as_answers_do(random_qwen2):
    tokenizer = loaded(random_qwen2).tokenizer
    for text in ("plain  text .", "<|im_start|>call<|im_end|>", " a <|im_start|> b"):
        ids = tokenizer(text)["input_ids"]
        assert reference_text(text, tokenizer).strip() == answer_text(ids, tokenizer)


def test_a_decoder_that_spaces_special_tokens_spaces_those_of_references(random_qwen2):
    tokenizer = loaded(random_qwen2).tokenizer
    with mock.patch.object(tokenizer, "decode", side_effect=lambda ids, **_: " ".join(map(str, ids))):
        assert reference_text("<|im_start|>", tokenizer) == "1"
        assert reference_text("a b", tokenizer) == "a b"
