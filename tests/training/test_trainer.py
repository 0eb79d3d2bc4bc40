"""The trainer: order of rows, accumulation and penalties, and a loss that is not finite."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from harness.data.sampler import LengthSampler
from harness.errors import RunFault
from harness.training import trainer
from tests.support.batches import Spy
from tests.support.runs import prepared, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def even_rows(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("even_rows"), train_rows=32, constant=True)


@pytest.fixture
def make(random_qwen2, rows, tmp_path):
    return lambda *words, rows=rows: prepared(random_qwen2, rows, tmp_path / "runs", *words)


def test_trainer_follows_the_sampler_through_two_epochs(make):
    made = make("trainer.max_steps=6", "trainer.kernels=plain")  # 24 rows, 8 a batch: two epochs
    spy = Spy(made.model)
    made.train(Path("unused"))
    examples = made.rows.splits["train"]
    seen = [[row[mask.bool()].tolist() for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)]
            for b in spy.batches]  # fmt: skip
    expected = []
    for epoch in range(2):
        sampler = LengthSampler([len(example.input_ids) for example in examples], 8, made.plan.seed)
        sampler.set_epoch(epoch)
        order = list(sampler)
        expected += [[list(examples[i].input_ids) for i in order[at : at + 8]] for at in range(0, 24, 8)]
    assert seen == expected


@pytest.mark.parametrize("method", ["lora", "adalora", "prompt_tuning", "diff_pruning", "cpt"])
def test_accumulating_two_batches_is_training_on_one_of_both(make, even_rows, method):
    words = [f"peft={method}", "trainer.max_steps=2", "trainer.learning_rate=1e-2", "trainer.max_grad_norm=1e-3"]
    words += ["diff_pruning.l0_weight=1e-3", "cpt.num_virtual_tokens=8"]
    gradients = []
    for split in ("trainer.batch_size=16", "trainer.batch_size=8 trainer.gradient_accumulation_steps=2"):
        made = make(*words, *split.split(), rows=even_rows)
        with _fixed_gates():
            norms = [point["grad_norm"] for point in made.train(Path("unused")).curve]
        gradients.append((norms, made.trainable()))
    (one, together), (two, apart) = gradients
    # AdamW forgives a gradient of twice the size; its norm does not.
    assert one == pytest.approx(two, rel=1e-3)
    for name, weight in together.items():
        assert torch.allclose(weight, apart[name], atol=2e-4), name


def _fixed_gates() -> Any:
    """Diff pruning draws its gates anew in each batch; here they are drawn alike."""
    return mock.patch("torch.rand_like", lambda tensor, **_: torch.full_like(tensor, 0.5))


def test_accumulation_weighs_tokens_not_batches(make):
    """Rows of unlike length: the mean is over the step's tokens, as if they stood in one batch."""
    words = ("trainer.max_steps=1", "trainer.max_grad_norm=1e9")
    whole = make(*words, "trainer.batch_size=24")
    parts = make(*words, "trainer.batch_size=4", "trainer.gradient_accumulation_steps=6")
    one, six = (made.train(Path("unused")).curve[0] for made in (whole, parts))
    assert one["grad_norm"] == pytest.approx(six["grad_norm"], rel=1e-4)
    assert one["loss"] == pytest.approx(six["loss"], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_training_with_step_and_batch(make):
    made = make("trainer.max_steps=4")
    calls = []
    original = trainer.Trainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        loss = original(self, *args, **kwargs)
        return loss * math.nan if len(calls) == 3 else loss

    with mock.patch.object(trainer.Trainer, "compute_loss", poisoned), pytest.raises(RunFault) as caught:
        made.train(Path("unused"))
    assert "optimizer step 3" in str(caught.value)
    assert "a batch of 8 rows" in str(caught.value)
    assert "lower trainer.learning_rate" in str(caught.value)
