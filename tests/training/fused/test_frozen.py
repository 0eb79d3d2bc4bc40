"""Layers below the lowest trained weight: computed once for each row, with equal results."""

import pytest
import torch

from harness.training import trainer as harness_trainer
from harness.training.checkpoints import CheckpointSettings
from harness.training.fused.frozen import FrozenLayers, frozen_below
from harness.training.fused.head import SUPPORTED, fused_head
from harness.training.fused.rows import joined_rows
from tests.support.runs import Cut, cut_at
from tests.training.fused.test_rows import LONG, SHORT, assert_alike, batch_of, small

UPPER = ("peft=lora", "lora.layers_to_transform=[1]", "lora.target_modules=[q_proj,v_proj]")  # of two layers
EPOCHS = ("trainer.batch_size=2", "trainer.max_steps=20")  # of 24 rows


def upper_only(kind: str):
    """A model whose last layer trains."""
    model = small(kind).requires_grad_(False)
    model.base_model.layers[1].requires_grad_(True)
    return model


def pass_over(model, batch, frozen: FrozenLayers | None):
    """Loss and gradients of one joined pass."""
    model.zero_grad()
    with fused_head(model), joined_rows(model, batch, single=True) as [given]:
        if frozen is None:
            loss = model(**given, num_items_in_batch=11).loss
        else:
            with frozen.given(given):
                loss = model(**given, num_items_in_batch=11).loss
        loss.backward()
    return loss.detach(), {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("kind", sorted(SUPPORTED))
def test_loss_and_gradients_are_those_of_the_whole_pass(kind):
    model = upper_only(kind)
    assert frozen_below(model) == 1
    frozen = FrozenLayers(model, 1)
    for texts in ((SHORT, LONG, LONG[:5]), (LONG, SHORT), (LONG,)):
        expected_loss, expected = pass_over(model, batch_of(*texts), None)
        loss, gradients = pass_over(model, batch_of(*texts), frozen)
        assert_alike(loss, gradients, expected_loss, expected)
    assert frozen.computed == 3  # rows that differ


def test_with_gradient_checkpointing_the_gradients_are_the_same():
    model = upper_only("llama")
    _, expected = pass_over(model, batch_of(SHORT, LONG), FrozenLayers(model, 1))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    _, gradients = pass_over(model, batch_of(SHORT, LONG), FrozenLayers(model, 1))
    assert gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name])


def test_a_row_has_the_same_bits_in_every_company():
    model = upper_only("llama")
    frozen = [FrozenLayers(model, 1, most_bytes) for most_bytes in (1 << 20, 0)]
    for texts in ((SHORT, LONG), (LONG[:3], SHORT, LONG[:6]), (SHORT,)):
        (loss, gradients), (again, others) = (pass_over(model, batch_of(*texts), each) for each in frozen)
        assert torch.equal(loss, again)
        assert all(torch.equal(gradient, others[name]) for name, gradient in gradients.items())
    assert [each.computed for each in frozen] == [4, 6]


def test_no_more_is_kept_than_is_allowed():
    model = upper_only("llama")
    most = len(SHORT) * model.config.hidden_size * 4
    frozen = FrozenLayers(model, 1, most)
    for _ in range(2):
        pass_over(model, batch_of(SHORT, LONG), frozen)
    assert (frozen.kept_bytes, frozen.computed) == (most, 3)  # the long row both times


def test_layers_compute_again_afterwards_and_after_an_error():
    model = upper_only("llama")
    expected = model(**batch_of(SHORT, LONG), num_items_in_batch=11).loss
    frozen = FrozenLayers(model, 1)
    with joined_rows(model, batch_of(SHORT, LONG)) as [given], pytest.raises(ZeroDivisionError), frozen.given(given):
        raise ZeroDivisionError
    assert torch.equal(model(**batch_of(SHORT, LONG), num_items_in_batch=11).loss, expected)


@pytest.mark.parametrize(
    ("trains", "layers"),
    [
        (["model.layers.1.mlp.up_proj.weight"], 1),
        (["model.layers.1.input_layernorm.weight", "model.norm.weight"], 1),
        (["lm_head.weight"], 1),  # one layer is always computed
        (["model.layers.0.mlp.up_proj.weight"], 0),
        (["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"], 0),
    ],
)
def test_what_lies_below_the_lowest_trained_weight(trains, layers):
    model = small("llama").requires_grad_(False)
    for name in trains:
        model.get_parameter(name).requires_grad_(True)
    assert frozen_below(model) == layers


def test_weights_that_layers_share_and_tied_embeddings_leave_nothing_frozen():
    model = upper_only("llama")
    model.register_parameter("bank", torch.nn.Parameter(torch.zeros(3)))
    assert frozen_below(model) == 0
    tied = small("llama").requires_grad_(False)
    tied.lm_head.weight = tied.model.embed_tokens.weight
    tied.lm_head.weight.requires_grad_(True)
    assert frozen_below(tied) == 0


@pytest.fixture
def counted(monkeypatch):
    """The frozen layers that trainings make."""
    made = []

    class Counted(FrozenLayers):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(harness_trainer, "FrozenLayers", Counted)
    return made


@pytest.mark.parametrize("words", [("peft=partial", "partial.last_layers=1"), UPPER])
def test_training_computes_each_row_once_and_ends_where_plain_training_does(make, counted, tmp_path, words):
    losses = {}
    for kernels in ("auto", "plain"):
        made = make(*words, *EPOCHS, f"trainer.kernels={kernels}")
        losses[kernels] = [point["loss"] for point in made.train(tmp_path / kernels).curve]
    [frozen] = counted
    rows = {tuple(row.input_ids) for row in made.rows.splits["train"]}
    assert frozen.computed == len(rows) < 2 * 20
    assert losses["auto"] == pytest.approx(losses["plain"], rel=1e-5)


@pytest.mark.parametrize(
    "words",
    [
        ("peft=lora",),  # its lowest layer trains
        (*UPPER, "trainer.max_steps=1"),  # no row is passed twice
        (*UPPER, "trainer.neftune_alpha=5"),  # embeddings differ each time
        (*UPPER, "trainer.kernels=plain"),
    ],
)
def test_where_nothing_is_reused(make, counted, tmp_path, words):
    make(*EPOCHS, *words).train(tmp_path)
    assert counted == []


def test_a_resumed_training_ends_with_the_same_bits(make, counted, tmp_path):
    words = (*UPPER, *EPOCHS)
    whole = make(*words)
    whole.train(tmp_path / "a")
    settings = CheckpointSettings(tmp_path / "checkpoints", "code", None, every_steps=14)
    with pytest.raises(Cut):
        make(*words).train(tmp_path / "b", settings, log=cut_at(15))
    resumed = make(*words)
    resumed.train(tmp_path / "c", settings)
    assert len(counted) == 3
    for name, weight in whole.trainable().items():
        assert torch.equal(resumed.trainable()[name], weight), name
