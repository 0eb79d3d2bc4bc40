"""Generated answers are those of the model alone: of no batch, no cache, no hidden preference, no other seed."""

from unittest import mock

import pytest
import torch

from harness.data.tokenize import prompt_of
from harness.methods.registry import prompt_learning
from harness.scoring.generate import decoding_config, generate
from tests.support.runs import CASES, disturbed, loaded, plan_of, prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words: prepared(random_qwen2, rows, tmp_path / "runs", *words)


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
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("case", CASES)
def test_batched_answers_are_those_of_one_prompt_at_a_time_without_a_cache(make, case):
    made = make(*CASES[case])
    model, tokenizer = disturbed(made.model), made.base.tokenizer
    # Ends within words: after a blank, a random model with tied embeddings only writes blanks.
    prompts = [list(example.input_ids[:-1]) for example in made.rows.splits["train"][:6]]
    assert len({len(prompt) for prompt in prompts}) > 2
    equal = prompt_learning(made.plan.method, made.plan.settings)
    found = generate(model, tokenizer, prompts, made.plan.scoring.generation, equal_lengths=equal)
    assert found == [uncached(model, tokenizer, prompt, 4) for prompt in prompts]
    assert len(set(found)) > 1


def test_answers_come_in_the_order_of_their_prompts(make):
    made = make()
    model, tokenizer, generation = disturbed(made.model), made.base.tokenizer, made.plan.scoring.generation
    prompts = [prompt_of(example) for example in made.rows.splits["train"]]
    forwards = generate(model, tokenizer, prompts, generation, equal_lengths=False)
    backwards = generate(model, tokenizer, prompts[::-1], generation, equal_lengths=False)
    assert forwards == backwards[::-1]


def test_the_models_own_generation_config_has_no_effect(make, random_qwen2):
    made = make()
    base, generation = loaded(random_qwen2), made.plan.scoring.generation
    prompts = [prompt_of(example) for example in made.rows.splits["test"]]
    plain = generate(base.model, base.tokenizer, prompts, generation, equal_lengths=False)
    preferences = base.model.generation_config
    bent = {"repetition_penalty": 50.0, "suppress_tokens": list(range(40, 100)), "no_repeat_ngram_size": 1}
    with mock.patch.multiple(preferences, **bent):
        assert generate(base.model, base.tokenizer, prompts, generation, equal_lengths=False) == plain
        assert base.model.generation_config is preferences
        assert preferences.repetition_penalty == 50.0


def test_greedy_settings_of_sampling_are_left_out(random_qwen2, rows, tmp_path):
    made, _ = plan_of(f"model.path={random_qwen2}", "scoring.generation.do_sample=false")
    decoding = decoding_config(made.scoring.generation, loaded(random_qwen2).tokenizer)
    assert (decoding.do_sample, decoding.top_p, decoding.temperature) == (False, None, None)
