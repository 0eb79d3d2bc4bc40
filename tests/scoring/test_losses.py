"""The completion loss is the mean over completion tokens, for every kind of model, and nothing else."""

import random
from dataclasses import replace

import pytest
import torch

from harness.data.collate import collate
from harness.data.rows import Row
from harness.data.tokenize import TokenizedRow
from harness.models.base import load_base
from harness.scoring import losses, prefix
from harness.scoring.losses import Passes, mean_completion_loss
from tests.support import method_cases as cases
from tests.support.runs import disturbed, overrides, plan_of, prepared
from tests.support.tuners_models import VOCAB, base_model

TOLERANCE = 2e-6  # of a loss, in float32: in parts or whole, in chunks or at once


def by_hand(model, examples) -> float:
    """Row by row, without padding, in float64."""
    total, count = 0.0, 0
    for example in examples:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        log_p = torch.log_softmax(logits[-len(example.input_ids) :].double(), dim=-1)
        for place in range(example.prompt_length, len(example.input_ids)):
            total -= log_p[place - 1, example.input_ids[place]].item()
            count += 1
    return total / count


@pytest.mark.parametrize("method", ["lora", "adalora", "prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"])
def test_loss_is_the_mean_over_completion_tokens(make, method):
    made = make(f"peft={method}")
    model, examples = disturbed(made.model), made.rows.splits["train"]
    expected = by_hand(model, examples)
    for batch_size in (1, 5, 64):
        found = losses.mean_completion_loss(model, examples, pad_id=0, batch_size=batch_size)
        assert found == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("method", ["adalora", "diff_pruning"])
def test_a_methods_penalty_never_reaches_the_loss(make, method):
    made = make(f"peft={method}", "diff_pruning.l0_weight=1.0")
    examples = made.rows.splits["test"]
    model = disturbed(made.model)
    found = losses.mean_completion_loss(model.train(), examples, pad_id=0, batch_size=64)
    assert model.training  # as it was
    penalized = model(**collate(examples, 0, "right")).loss.item()
    assert penalized > found + 0.1
    assert found == pytest.approx(by_hand(model, examples), rel=2e-6)


def made_rows(shared: int, count: int = 9) -> list[TokenizedRow]:
    """Rows of different lengths after a shared start."""
    draw = random.Random(shared)
    start = [draw.randrange(2, VOCAB) for _ in range(shared)]
    rows = []
    for number in range(count):
        prompt = start + [draw.randrange(2, VOCAB) for _ in range(draw.randrange(1, 9))]
        ids = prompt + [draw.randrange(2, VOCAB) for _ in range(draw.randrange(1, 12))]
        rows.append(TokenizedRow(tuple(ids), len(prompt), Row(number, "x", "", "", "y", (), None), ""))
    return rows


def loss_of(model, rows, plain: bool = False, batch_size: int = 4) -> float:
    return mean_completion_loss(model, rows, pad_id=0, batch_size=batch_size, plain=plain)


# Gemma 2 caps its logits after the head, Cohere scales them, Granite divides them.
@pytest.mark.parametrize(
    ("architecture", "chunks"),
    [
        *((kind, True) for kind in ("qwen2", "llama", "gpt2", "gemma3_text", "opt", "bloom")),
        *((kind, False) for kind in ("gemma2", "cohere", "granite")),
    ],
)
@pytest.mark.parametrize("shared", [0, 7])
def test_losses_in_chunks_and_after_a_shared_start_are_those_of_whole_rows(architecture, chunks, shared, monkeypatch):
    model, rows = base_model(architecture).eval(), made_rows(shared)
    if not chunks:
        model.config.final_logit_softcapping = 30.0  # Gemma 2's own, which hardly changes logits as small as these
        model.config.logits_scaling, model.logit_scale, model.logits_scaling = 7.0, 7.0, 7.0
    monkeypatch.setattr(losses, "FEWEST", 1)
    monkeypatch.setattr(losses, "CHUNK_BYTES", 3 * 4 * VOCAB)  # three positions at a time
    sizes = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, out: sizes.append(out.shape[:-1].numel()))
    expected = by_hand(model, rows)
    sizes.clear()
    assert loss_of(model, rows) == pytest.approx(expected, rel=TOLERANCE)
    assert (max(sizes) <= 4) == chunks  # one last position of each row, or three at a time
    assert loss_of(model, rows, plain=True) == pytest.approx(expected, rel=TOLERANCE)


def test_a_shared_start_is_read_once(monkeypatch):
    model, rows, read = base_model("qwen2").eval(), made_rows(7), []
    trunk = model.get_decoder()
    trunk.embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0].numel()))
    expected = loss_of(model, rows, plain=True, batch_size=1)
    whole = sum(read)
    read.clear()
    assert loss_of(model, rows, batch_size=1) == pytest.approx(expected, rel=TOLERANCE)
    assert sum(read) == whole - 7 * (len(rows) - 1)


def test_an_earlier_turn_that_is_trained_is_not_taken_for_a_shared_start():
    rows = [replace(row, turns=((3, 6),)) for row in made_rows(7)]
    model = base_model("qwen2").eval()
    assert loss_of(model, rows) == pytest.approx(loss_of(model, rows, plain=True), rel=TOLERANCE)


@pytest.mark.parametrize(("case", "architecture"), cases.fast_on_qwen2(list(cases.FIT)))
def test_every_method_has_the_loss_of_whole_rows(case, architecture):
    if case in cases.SLOW:
        pytest.skip("takes seconds to train")
    model, rows = cases.trained(case, architecture).model, made_rows(7)
    assert loss_of(model, rows) == pytest.approx(loss_of(model, rows, plain=True), rel=1e-5)


def test_completion_logits_are_the_same_in_parts_and_whole():
    model, rows = base_model("qwen2").eval(), made_rows(7)
    batch = collate(rows, 0, "right")
    with torch.no_grad():
        parts, whole = (Passes(model, rows, plain).completion_logits(batch) for plain in (False, True))
    assert [len(logits) for logits in whole] == [len(row.input_ids) - row.prompt_length for row in rows]
    for here, there in zip(parts, whole, strict=True):
        torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


def test_a_model_that_must_read_whole_rows_does(monkeypatch):
    monkeypatch.setattr(prefix, "reads_in_parts", lambda model, longest: False)
    model, rows, read = base_model("qwen2").eval(), made_rows(7), []
    model.get_decoder().embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0].shape[1]))
    loss_of(model, rows, batch_size=1)
    assert sorted(read) == sorted(len(row.input_ids) for row in rows)


def test_losses_of_a_base_in_half_precision_are_computed_in_chunks_too(random_qwen2, rows, tmp_path):
    words = (f"model.path={random_qwen2}", "model.dtype=bfloat16")
    base = load_base(plan_of(*overrides(random_qwen2, rows, tmp_path), *words)[0].model)
    for method in ("lora", "full"):
        made = prepared(random_qwen2, rows, tmp_path, *words, f"peft={method}", base=base)
        model, examples = disturbed(made.model), made.rows.splits["train"]
        assert loss_of(model, examples) == pytest.approx(loss_of(model, examples, plain=True), rel=1e-2)
