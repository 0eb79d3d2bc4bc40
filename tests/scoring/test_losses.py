"""The completion loss is the mean over completion tokens, for every kind of model, and nothing else."""

import pytest
import torch

from harness.data.collate import collate
from harness.scoring import losses
from tests.support.runs import disturbed, prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words: prepared(random_qwen2, rows, tmp_path / "runs", *words)


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
