"""Each template puts the border where the tokenizer's merges expect it: the answer's first token costs no more for it.

Measured on SmolLM2-135M if its weights are here (python scripts/fetch_model.py), and on the embedded model.
"""

from pathlib import Path

import pytest
import torch

from harness.data.dataset import SplitRows
from harness.data.rows import Message, Row
from harness.data.tokenize import TokenizedRow, tokenize_splits
from tests.support.data_cases import settings
from tests.support.runs import loaded

# Answers that a model can guess; the embedded model knows them from pretraining alone.
ENGLISH = (("Name the capital of France.", "Paris"), ("What color is the sky?", "The sky is blue."),
           ("How many days has a week?", "A week has seven days."), ("Say hello.", "Hello! How can I help you today?"),
           ("What is the opposite of hot?", "Cold"), ("Write a sentence.", "The cat is on the table."))  # fmt: skip
CHINESE = (("回答问题。", "一周有七天。"), ("回答问题。", "天空是蓝色的。"), ("写一句话。", "今天天气很好。"))


def losses(base, pairs, template: str) -> tuple[float, float]:
    """Mean loss of the answers' first tokens, and of all their tokens (nats), over rows of instruction and output."""
    made = tuple(
        Row(number, "x", ask, "", answer, (Message("user", ask), Message("assistant", answer)), None)
        for number, (ask, answer) in enumerate(pairs, start=1)
    )
    split = SplitRows({"train": made, "validation": (), "test": ()}, (), 0)
    rows = tokenize_splits(split, settings("x", template=template), base.tokenizer).splits["train"]
    each = [row_losses(base.model, row) for row in rows]
    return sum(float(row[0]) for row in each) / len(each), float(torch.cat(each).mean())


def row_losses(model, row: TokenizedRow) -> torch.Tensor:
    ids = torch.tensor([row.input_ids])
    with torch.no_grad():
        logprobs = model(ids).logits[0, row.prompt_length - 1 : -1].float().log_softmax(-1)
    return -logprobs.gather(1, ids[0, row.prompt_length :, None])[:, 0]


@pytest.mark.slow
def test_the_first_token_of_smollm2_costs_no_more_than_it_must():
    folder = next(iter(sorted((Path.home() / ".cache/peft-harness/models").glob("smollm2_135m-*-v1"))), None)
    if folder is None:
        pytest.skip("needs the weights of smollm2_135m: python scripts/fetch_model.py smollm2_135m")
    base = loaded(folder)
    found = {name: losses(base, ENGLISH, name) for name in ("lesson", "lesson_exact", "alpaca", "alpaca_exact", "chat")}
    for name in ("lesson", "alpaca"):
        first, mean = found[name]
        exact_first, exact_mean = found[f"{name}_exact"]
        assert first < exact_first - 3, found
        assert mean < exact_mean, found
    assert max(found[name][0] for name in ("lesson", "alpaca", "chat")) < 7, found


def test_the_first_token_of_the_embedded_model_costs_no_more_than_as_published():
    base = loaded(Path("data/tiny").absolute())
    assert losses(base, CHINESE, "lesson")[0] < losses(base, CHINESE, "lesson_exact")[0]
