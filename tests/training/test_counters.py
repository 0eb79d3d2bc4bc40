"""Tokens and seconds: padding is counted apart from text, and validation is not part of the training time."""

from unittest import mock

import torch

from harness.training import counters, train
from tests.support.runs import prepared, write_rows


def test_validating_is_not_part_of_the_training_time(random_qwen2, tmp_path):
    rows = write_rows(tmp_path / "rows")
    clock = iter(range(1000))
    made = prepared(random_qwen2, rows, tmp_path / "runs", "trainer.max_steps=4", "trainer.evaluations=4")

    def slow(model, **_):
        [next(clock) for _ in range(100)]
        return 1.0

    with (
        mock.patch.object(train, "mean_completion_loss", slow),
        mock.patch.object(counters.time, "perf_counter", side_effect=clock),
    ):
        done = made.train(tmp_path / "scratch")
    assert done.step_seconds < 100


def test_padding_is_counted_apart_from_text():
    tokens = counters.TokenCounter(torch.device("cpu"))
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, -100, 7, 8], [-100, 6, -100, -100]]),
    }
    tokens.add(batch)
    tokens.add(batch)
    assert tokens.counts() == {"supervised_tokens": 6, "prompt_tokens": 6, "padding_tokens": 4}
    assert tokens.text_tokens == 12
    tokens.add(batch, padded=False)
    assert tokens.counts() == {"supervised_tokens": 9, "prompt_tokens": 9, "padding_tokens": 4}
