"""Answers whose places are refilled are those of transformers' generate, one prompt at a time."""

import functools
import random

import pytest
import torch
from transformers import GenerationConfig

from harness.scoring.decode import can_decode, greedy
from harness.scoring.kv_cache import SlotCache
from tests.support import method_cases as cases
from tests.support.runs import CASES, disturbed, prepared, write_rows
from tests.support.tuners_models import VOCAB, base_model

LIMIT = 24


@functools.cache
def network(architecture: str):
    """A random model with large weights, so that its answers differ."""
    model = base_model(architecture)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:  # small embeddings, or a model with tied ones repeats its last token
                scale = 0.05 if "embed" in name or "wte" in name else 1.0
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return model.eval()


def prompts(shared: int, count: int = 14) -> list[list[int]]:
    """Prompts of 1 to 20 tokens after a shared start."""
    draw = random.Random(shared)
    start = [draw.randrange(2, VOCAB) for _ in range(shared)]
    return [start + [draw.randrange(2, VOCAB) for _ in range(draw.randrange(1, 21))] for _ in range(count)]


def alone(model, prompt: list[int], stops: tuple[int, ...]) -> list[int]:
    """The answer that transformers writes."""
    ends = [*stops, VOCAB]  # with none at all, transformers would take the model's own
    decoding = GenerationConfig(max_new_tokens=LIMIT, do_sample=False, eos_token_id=ends, pad_token_id=0)
    row = torch.tensor([prompt])
    output = model.generate(input_ids=row, attention_mask=torch.ones_like(row), generation_config=decoding)
    ids = output[0, len(prompt) :].tolist()
    return ids[: next((at for at, number in enumerate(ids) if number in stops), len(ids))]


def endings(model, asked: list[list[int]]) -> tuple[int, ...]:
    """Tokens that end some answers early, some late, and some never."""
    written = [alone(model, prompt, ()) for prompt in asked]
    return tuple({answer[at] for at, answer in zip((0, 1, 3, 6, 9, 12), written, strict=False)})


@functools.cache
def answered_alone(architecture: str, shared: int) -> tuple[tuple[int, ...], list[list[int]]]:
    """Stops, and the answers of transformers."""
    model, asked = network(architecture), prompts(shared)
    stops = endings(model, asked)
    return stops, [alone(model, prompt, stops) for prompt in asked]


@pytest.mark.parametrize("places", [1, 3, 5, 64])
@pytest.mark.parametrize("shared", [0, 9])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2", "gemma3_text"])
def test_answers_are_those_of_one_prompt_at_a_time(architecture, shared, places):
    stops, expected = answered_alone(architecture, shared)
    assert len({len(answer) for answer in expected}) > 3  # they end at different times
    found = greedy(network(architecture), prompts(shared), limit=LIMIT, stops=stops, places=places)
    assert found == expected


def test_places_are_refilled_stale_columns_dropped_and_the_batch_shrinks(monkeypatch):
    called = []
    for name in ("put_rows", "drop_columns", "keep_rows"):
        real = getattr(SlotCache, name)

        def counted(cache, *given, real=real, name=name):
            called.append(name)
            return real(cache, *given)

        monkeypatch.setattr(SlotCache, name, counted)
    model, asked = network("qwen2"), prompts(6, count=40)
    stops = endings(model, asked)
    told = {}
    found = greedy(model, asked, limit=LIMIT, stops=stops, places=4, ended=lambda at, ids: told.update({at: list(ids)}))
    assert set(called) == {"put_rows", "drop_columns", "keep_rows"}
    assert found == [alone(model, prompt, stops) for prompt in asked]
    assert told == dict(enumerate(found))


def test_answers_that_all_end_at_once_and_no_prompts_at_all():
    model, asked = network("qwen2"), prompts(0, count=5)
    assert greedy(model, asked, limit=3, stops=tuple(range(VOCAB)), places=2) == [[]] * 5
    assert greedy(model, [], limit=3, stops=(), places=2) == []


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("case", CASES)
def test_tuned_models_that_keep_nothing_in_the_cache_are_decoded_here(random_qwen2, rows, tmp_path, case):
    model = disturbed(prepared(random_qwen2, rows, tmp_path / "runs", *CASES[case]).model)
    asked = prompts(8)
    own = case not in ("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2")
    assert can_decode(model, asked, LIMIT) == own
    if own:
        found = greedy(model, asked, limit=LIMIT, stops=(1,), places=4)
        assert found == [alone(model, prompt, (1,)) for prompt in asked]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), [pair for pair in cases.FIT if pair[1] != "llama"])
def test_every_method_that_is_decoded_here_answers_as_in_transformers(case, architecture):
    if case in cases.SLOW:
        pytest.skip("takes seconds to train")
    model, asked = cases.trained(case, architecture).model, prompts(8, count=6)
    if can_decode(model, asked, LIMIT):
        found = greedy(model, asked, limit=LIMIT, stops=(1,), places=2)
        assert found == [alone(model, prompt, (1,)) for prompt in asked]
