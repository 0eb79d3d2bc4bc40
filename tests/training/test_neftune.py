"""NEFTune: how large the noise is, that padding and evaluation have none, and that joined rows get the same."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn

from harness.errors import RunFault
from harness.training import checkpoints, train
from harness.training.fused.rows import joined
from harness.training.neftune import noisy_embeddings
from harness.training.packed.eligible import why_alone
from tests.support.batches import example_batch
from tests.support.runs import Cut, cut_at, plan_of


def noise(model, batch, alpha=5.0):
    """What is added to the embeddings of a batch."""
    embedding = model.get_base_model().get_input_embeddings()
    plain = embedding(batch["input_ids"])
    torch.manual_seed(3)
    with noisy_embeddings(model, alpha, batch):
        noisy = embedding(batch["input_ids"])
    assert torch.equal(embedding(batch["input_ids"]), plain)  # and none afterwards
    return (noisy - plain).detach()


def test_it_is_bounded_by_the_rows_own_length_and_padding_gets_none(make):
    made = make()
    batch = example_batch(made)
    lengths = batch["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) > 1
    added = noise(made.model, batch)
    for length, row, mask in zip(lengths.tolist(), added, batch["attention_mask"].bool(), strict=True):
        bound = 5.0 / (length * row.shape[-1]) ** 0.5
        assert 0.95 * bound < row[mask].abs().max() <= bound * 1.001
        assert row[mask].std().item() == pytest.approx(bound / 3**0.5, rel=0.1)  # of a uniform distribution
        assert not row[~mask].any()


def test_joined_rows_get_the_numbers_of_the_padded_batch(make):
    made = make()
    batch = example_batch(made)
    padded = noise(made.model, batch)[batch["attention_mask"].bool()]
    assert torch.allclose(noise(made.model, joined(batch))[0], padded, atol=1e-7)


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_both_kinds_of_passes_train_alike_with_it(make, tmp_path, method):
    curves = {}
    for kernels in ("auto", "plain"):
        for alpha in ("5", "null"):
            made = make(f"peft={method}", f"trainer.kernels={kernels}", f"trainer.neftune_alpha={alpha}")
            curves[kernels, alpha] = [point["loss"] for point in made.train(tmp_path / f"{kernels}{alpha}").curve]
    assert curves["auto", "5"] == pytest.approx(curves["plain", "5"], rel=1e-5)
    assert curves["auto", "5"] != pytest.approx(curves["auto", "null"], rel=1e-3)


def test_evaluation_has_none(make, tmp_path):
    made = make("trainer.neftune_alpha=5", "trainer.evaluations=2")
    hooks = []

    def loss(model, **_):
        hooks.append(len(model.get_base_model().get_input_embeddings()._forward_hooks))
        return 1.0

    with mock.patch.object(train, "mean_completion_loss", side_effect=loss):
        made.train(tmp_path / "scratch")
    assert hooks == [0, 0]


def test_a_run_that_is_cut_resumes_with_the_same_noise(make, tmp_path):
    words = ("trainer.max_steps=4", "trainer.neftune_alpha=5")
    settings = checkpoints.CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=2)

    whole = make(*words)
    expected = whole.train(tmp_path / "a")
    with pytest.raises(Cut):
        make(*words).train(tmp_path / "b", settings, log=cut_at(3))
    resumed = make(*words)
    assert resumed.train(tmp_path / "c", settings).curve == expected.curve
    assert all(torch.equal(weight, resumed.trainable()[name]) for name, weight in whole.trainable().items())


def test_a_model_that_embeds_in_another_way_is_refused():
    model = SimpleNamespace(get_input_embeddings=lambda: nn.Embedding(4, 2))
    batch = {"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with (
        pytest.raises(RunFault, match=r"trainer.neftune_alpha=5 has no effect.*; set trainer.neftune_alpha=null"),
        noisy_embeddings(model, 5.0, batch),
    ):
        pass


def test_such_a_run_trains_alone():
    assert why_alone(plan_of()[0]) is None
    assert "trainer.neftune_alpha=5" in why_alone(plan_of("trainer.neftune_alpha=5")[0])
