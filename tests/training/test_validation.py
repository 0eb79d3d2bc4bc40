"""Validation: the best weights are restored exactly, and AdaLoRA's are kept only after pruning has ended."""

from unittest import mock

import pytest
import torch

from harness.training import train
from tests.support.runs import prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


def trained(made, folder, losses):
    """Train with these validation losses; return the result and the weights at each of them."""
    seen = []

    def scripted(model, **_):
        seen.append(made.trainable())
        return losses[len(seen) - 1]

    with mock.patch.object(train, "mean_completion_loss", scripted):
        done = made.train(folder)
    return done, seen


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt_tuning", "full"])
def test_the_weights_of_the_lowest_validation_loss_come_back_bit_for_bit(random_qwen2, rows, tmp_path, method):
    words = (f"peft={method}", "trainer.max_steps=4", "trainer.evaluations=4")
    made = prepared(random_qwen2, rows, tmp_path / "runs", *words)
    done, seen = trained(made, tmp_path / "scratch", [3.0, 1.0, 2.0, 1.5])
    assert done.best_step == 2
    now = made.trainable()
    assert now.keys() == seen[1].keys()
    assert all(torch.equal(now[name], seen[1][name]) for name in now)
    assert not all(torch.equal(now[name], seen[3][name]) for name in now)
    assert not list((tmp_path / "scratch").glob("best*"))


def test_where_the_last_weights_are_the_best_they_stay(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path / "runs", "trainer.max_steps=4", "trainer.evaluations=4")
    done, seen = trained(made, tmp_path / "scratch", [3.0, 2.5, 2.0, 1.0])
    assert done.best_step == 4
    assert all(torch.equal(weight, seen[3][name]) for name, weight in made.trainable().items())


def test_without_keep_best_the_last_weights_stay(random_qwen2, rows, tmp_path):
    words = ("trainer.max_steps=4", "trainer.evaluations=4", "trainer.keep_best=false")
    made = prepared(random_qwen2, rows, tmp_path / "runs", *words)
    done, seen = trained(made, tmp_path / "scratch", [1.0, 2.0, 3.0, 4.0])
    assert done.best_step is None
    assert all(torch.equal(weight, seen[3][name]) for name, weight in made.trainable().items())


def test_adalora_keeps_no_weights_from_before_its_pruning_ended(random_qwen2, rows, tmp_path):
    words = ("peft=adalora", "trainer.max_steps=10", "trainer.evaluations=10", "adalora.final_share=0.3")
    made = prepared(random_qwen2, rows, tmp_path / "runs", *words, "adalora.init_r=4", "adalora.target_r=2")
    losses = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.0, 1.0, 3.0, 4.0]  # pruning ends with step 7
    done, seen = trained(made, tmp_path / "scratch", losses)
    assert done.best_step == 8
    now = made.trainable()
    assert all(torch.equal(now[name], seen[7][name]) for name in now)
    values = [weight for name, weight in now.items() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in values) <= 2 * len(values)


def test_validation_steps_are_spread_and_end_with_the_last(random_qwen2, rows, tmp_path):
    made = prepared(random_qwen2, rows, tmp_path / "runs", "trainer.max_steps=7", "trainer.evaluations=3")
    done, _ = trained(made, tmp_path / "scratch", [3.0, 2.0, 1.0])
    assert [point["step"] for point in done.validation] == [2, 5, 7]
