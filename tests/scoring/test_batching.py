"""The batch size changes no score: padding that would change one is known before, or found and avoided."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.frozen import freeze
from harness.models.base import Base
from harness.scoring import batching, decode, prefix
from harness.scoring.batching import Batching, attends_to_everything, check_batches, needs_equal_lengths
from harness.scoring.score import score
from tests.support.runs import disturbed, loaded, prepared, ready, write_rows

STOPS = (2,)
SIZES = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "eos_token_id": 2}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"), others=12)


def base_of(kind: str, random_qwen2: Path, **settings: object) -> Base:
    """A random model of this architecture under the tokenizer of the random Qwen2."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, "bos_token_id": 2}, **settings))
    if kind != "rwkv":  # whose own start is diverse enough
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.1)
    model.requires_grad_(False)
    return replace(loaded(random_qwen2), model=model.eval())


def scored(made, model, batch_size: int, equal_lengths: bool):
    """Scores of the test rows in batches of that size."""
    generation = replace(made.plan.scoring.generation, batch_size=batch_size, max_new_tokens=6)
    scoring = freeze(replace(made.plan.scoring, generation=generation, loss_batch_size=batch_size))
    rows, tokenizer = made.rows.splits["test"], made.base.tokenizer
    return score(model, tokenizer, rows, [], scoring, stops=STOPS, equal_lengths=equal_lengths, seed=0)


WINDOW = 72  # holds the prefix and the shortest prompt, but not the padding that the longest adds


@pytest.mark.parametrize(
    ("peft", "window"),
    [
        ("p_tuning_v2", WINDOW),
        ("p_tuning_v2", 512),
        ("prefix_tuning", WINDOW),
        ("lora", WINDOW),
        ("prompt_tuning", WINDOW),
    ],
)
def test_batch_size_moves_no_answer_on_a_sliding_window(random_qwen2, rows, tmp_path, peft, window):
    base = base_of("mistral", random_qwen2, sliding_window=window, **ATTENTION)
    plan = prepared(random_qwen2, rows, tmp_path / "runs", f"peft={peft}").plan
    made = ready(plan, base, tmp_path / "runs")
    model = disturbed(made.model)
    equal = needs_equal_lengths(base.model, plan.method, plan.settings)
    alone, together = (scored(made, model, size, equal) for size in (1, 64))
    assert alone.answers == together.answers
    assert len(set(alone.answers)) > 1
    assert alone.values["loss"] == pytest.approx(together.values["loss"], rel=1e-5)


def test_the_check_finds_a_prefix_that_padding_pushes_out_of_the_window(random_qwen2, rows, tmp_path):
    base = base_of("mistral", random_qwen2, sliding_window=WINDOW, **ATTENTION)
    made = ready(prepared(random_qwen2, rows, tmp_path / "runs", "peft=p_tuning_v2").plan, base, tmp_path / "runs")
    model = disturbed(made.model)
    found = scored(made, model, 64, equal_lengths=False)
    assert found.answers == scored(made, model, 1, equal_lengths=False).answers
    assert any("answers depend on the padding of a batch" in note for note in found.notes)


def test_a_model_whose_state_mixes_the_rows_of_a_batch_is_scored_one_row_at_a_time(random_qwen2, rows, tmp_path):
    base = base_of("rwkv", random_qwen2, attention_hidden_size=32, intermediate_size=48, context_length=128)
    made = ready(prepared(random_qwen2, rows, tmp_path / "runs", "peft=lora").plan, base, tmp_path / "runs")
    assert needs_equal_lengths(base.model)
    known, alone = (scored(made, base.model, size, equal_lengths=True) for size in (64, 1))
    assert known.answers == alone.answers
    assert len(set(known.answers)) > 1
    assert any("even of one length" in note for note in known.notes)  # transformers broadcasts its state over rows
    unknown = scored(made, base.model, 64, equal_lengths=False)  # as if nobody knew
    assert unknown.answers == alone.answers
    assert any("depend on the padding" in note for note in unknown.notes)


class Mixing(torch.nn.Module):
    """A model whose logits depend on the other rows of a batch."""

    def __init__(self, base: torch.nn.Module) -> None:
        super().__init__()
        self.base, self.config, self.generation_config = base, base.config, base.generation_config
        head = base.get_output_embeddings()
        head.register_forward_hook(lambda _, __, logits: logits + logits.mean(dim=0, keepdim=True))

    def forward(self, **inputs: object) -> object:
        return self.base(**inputs)

    def generate(self, **inputs: object) -> object:
        return self.base.generate(**inputs)

    loss_type = None


def test_a_model_that_mixes_rows_is_scored_one_row_at_a_time(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path / "runs")
    model = Mixing(base_of("qwen2", random_qwen2, **ATTENTION).model)
    arguments = (model, made.base.tokenizer, made.rows.splits["test"], made.plan.scoring)
    found = check_batches(*arguments, stops=STOPS, equal_lengths=False)
    assert (found.answers, found.losses) == (Batching.single, Batching.single)
    assert len(found.notes) == 3
    assert scored(made, model, 64, False).answers == scored(made, model, 1, False).answers


def test_a_plain_model_is_batched_by_any_length_and_says_nothing(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path / "runs")
    arguments = (made.base.model, made.base.tokenizer, made.rows.splits["test"], made.plan.scoring)
    found = check_batches(*arguments, stops=STOPS, equal_lengths=False)
    assert found == batching.BatchCheck(Batching.refilled, Batching.padded, ())


@pytest.mark.parametrize(
    ("settings", "everything"),
    [
        ({}, True),
        ({"sliding_window": 4096}, False),
        ({"sliding_window": 4096, "use_sliding_window": False}, True),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": 512}, True),
        ({"layer_types": ["sliding_attention", "full_attention"]}, False),
        ({"layer_types": ["linear_attention", "full_attention"]}, False),
        ({"attention_chunk_size": 8192}, False),
    ],
)
def test_windows_chunks_and_states_are_read_from_the_config(settings, everything):
    text = SimpleNamespace(**settings)
    assert attends_to_everything(SimpleNamespace(get_text_config=lambda: text)) == everything


def test_positions_that_the_longest_row_decides_are_found_in_answers_and_losses(random_qwen2, rows, tmp_path):
    """LongRoPE (Phi-3) takes other factors for the whole batch once one row of it is long."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 50}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, **factors}
    sizes = {"max_position_embeddings": 200, "original_max_position_embeddings": 50}
    base = base_of("phi3", random_qwen2, rope_parameters=rope, **sizes, **ATTENTION)
    made = ready(prepared(random_qwen2, rows, tmp_path / "runs").plan, base, tmp_path / "runs")
    lengths = [row.prompt_length for row in made.rows.splits["test"]]
    assert min(lengths) < 50 < max(lengths)
    found = check_batches(
        base.model, base.tokenizer, made.rows.splits["test"], made.plan.scoring, stops=STOPS, equal_lengths=False
    )
    assert (found.answers, found.losses) == (Batching.equal, Batching.single)
    alone, together = (scored(made, base.model, size, equal_lengths=False) for size in (1, 64))
    assert alone.answers == together.answers
    assert alone.values["loss"] == pytest.approx(together.values["loss"], rel=1e-6)


def test_a_model_that_does_not_read_in_parts_after_all_is_scored_whole(random_qwen2, rows, tmp_path, monkeypatch):
    """The check sees a shared start that is read wrongly: losses are of whole rows, answers those of transformers."""
    made = prepared(random_qwen2, rows, tmp_path / "runs")
    expected = scored(made, made.base.model, 1, equal_lengths=False)
    real = prefix.read_prefix
    wrong = lambda model, ids: real(model, [5 + number % 7 for number in range(len(ids))])  # noqa: E731
    monkeypatch.setattr(prefix, "read_prefix", wrong)
    monkeypatch.setattr(decode, "read_prefix", wrong)
    arguments = (made.base.model, made.base.tokenizer, made.rows.splits["test"], made.plan.scoring)
    found = check_batches(*arguments, stops=STOPS, equal_lengths=False)
    assert found == batching.BatchCheck(Batching.padded, Batching.padded, (), plain=True)
    again = scored(made, made.base.model, 64, equal_lengths=False)
    assert again.answers == expected.answers
    assert again.values["loss"] == pytest.approx(expected.values["loss"], rel=1e-5)


def test_sampled_answers_are_batched_as_before(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path / "runs", "scoring.generation.do_sample=true")
    arguments = (made.base.model, made.base.tokenizer, made.rows.splits["test"], made.plan.scoring)
    assert check_batches(*arguments, stops=STOPS, equal_lengths=False).answers is Batching.padded
