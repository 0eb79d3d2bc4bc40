"""Tuning when memory runs out: smaller batches of the same rows, if asked; otherwise a failure with a remedy."""

from unittest import mock

import pytest
import torch

from harness.pipeline import tune
from harness.pipeline.tune import with_smaller_batch
from harness.training import trainer
from tests.support.runs import plan_of


def out_of_memory_above(rows: int):
    """Training fails as on a GPU that holds only so many rows per pass."""
    step = trainer.HarnessTrainer.training_step

    def limited(self, model, inputs, *rest):
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        return step(self, model, inputs, *rest)

    return mock.patch.object(trainer.HarnessTrainer, "training_step", limited)


def test_out_of_memory_halves_the_batch_if_asked_and_trains_the_same(run):
    with out_of_memory_above(3):
        done, halved = run("trainer.on_oom=halve", "trainer.batch_size=8")
    assert done.code == 0, done.err
    assert halved["inferred"]["batch_size"] == 2
    assert halved["inferred"]["gradient_accumulation_steps"] == 4
    prefix = "out of memory (CUDA out of memory. Tried to allocate 2 GiB): training again with "
    notes = [note.removeprefix(prefix) for note in halved["notes"] if note.startswith(prefix)]
    first, second = (note.partition(", which is the same training but for")[0] for note in notes)
    assert (first, second) == ("4 rows per pass and 2 passes per step", "2 rows per pass and 4 passes per step")
    _, same = run("trainer.batch_size=2", "trainer.gradient_accumulation_steps=4", "rerun=true")
    assert same["fingerprint"] != halved["fingerprint"]
    assert same["training"]["curve"] == halved["training"]["curve"]
    assert same["scores"]["after"] == halved["scores"]["after"]


def test_a_batch_is_not_halved_where_the_loss_is_a_mean_over_each_pass(run):
    with out_of_memory_above(3), mock.patch.object(tune, "loss_sums_over_step", return_value=False):
        done, kept = run("trainer.on_oom=halve", "trainer.batch_size=8")
    assert (done.code, kept["status"]) == (1, "failed")
    assert any("trainer.on_oom=halve does not apply" in note for note in kept["notes"])


@pytest.mark.parametrize("words", [(), ("trainer.on_oom=halve",)])
def test_out_of_memory_is_a_failure_with_a_remedy_where_nothing_is_left_to_halve(run, words):
    with out_of_memory_above(0 if words else 7):
        done, kept = run("trainer.batch_size=8", *words)
    assert (done.code, kept["status"]) == (1, "failed")
    assert "trainer.on_oom=halve" in kept["error"]["hint"]


@pytest.mark.parametrize(("rows", "smaller"), [(8, (4, 2)), (9, (3, 3)), (7, (1, 7)), (1, None)])
def test_a_batch_is_halved_or_divided_by_its_smallest_divisor(weightless, rows, smaller):
    plan, _ = plan_of(f"model.path={weightless}", f"trainer.batch_size={rows}")
    found = with_smaller_batch(plan)
    trainer = found.trainer if found else None
    assert (trainer and (trainer.batch_size, trainer.gradient_accumulation_steps)) == smaller
