"""One pass for two runs of any two kinds gives each the loss and the gradients that it has alone."""

import itertools
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.training.packed.host import Host
from harness.training.packed.layers import NotPackable, PackedLayer
from tests.support.packs import SETTINGS, batch_of, solo, state_of, taken_gradients
from tests.support.runs import disturbed, prepared, write_rows

# Batches of different rows, lengths and sizes, so that each is filled up or padded beside another.
PLACES = ([0, 1, 2], [3, 7], [1, 2, 3, 4])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def make(random_qwen2, rows, tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("runs")
    return lambda *words: prepared(random_qwen2, rows, runs_dir, *words)


@pytest.fixture(scope="module")
def alone(make):
    """Of each kind of run: its batch, and the loss and gradients of that alone."""
    found = {}
    for number, (name, words) in enumerate(SETTINGS.items()):
        made = make(*words)
        disturbed(made.model)
        batch = batch_of(made, PLACES[number % len(PLACES)])
        found[name] = batch, *solo(batch, seed=number)
    return found


# The fast part pairs each kind with one; all other pairs are slow together.
PAIRS = [
    pytest.param(*pair, marks=() if pair[0] == next(iter(SETTINGS)) else pytest.mark.slow)
    for pair in itertools.combinations(SETTINGS, 2)
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_of_two_runs_has_its_own_loss_and_gradients(alone, first, second):
    host, numbers = Host(alone[first][0].base), list(SETTINGS)
    batches = {name: alone[name][0] for name in (first, second)}
    for name, batch in batches.items():
        host.admit(name, batch.model)
    losses = host.run(batches, {name: state_of(numbers.index(name)) for name in batches})
    for name in batches:
        _, loss, expected = alone[name]
        got = taken_gradients(batches[name].model)
        assert torch.allclose(losses[name], loss, rtol=1e-5), name
        assert got.keys() == expected.keys()
        for key, gradient in got.items():
            rounding = 1e-5 * float(expected[key].abs().max())
            assert torch.allclose(gradient, expected[key], rtol=1e-4, atol=rounding), (name, key)


def test_gradients_are_added_and_have_the_layout_of_their_weights(make):
    first, second = make("lora.r=2"), make("lora.r=5")
    host = Host(first.base)
    batches = {"a": batch_of(first, [0, 1]), "b": batch_of(second, [2, 3])}
    for name, batch in batches.items():
        disturbed(batch.model)
        batch.model.train()
        host.admit(name, batch.model)
    states = {name: state_of(0) for name in batches}
    host.run(batches, states)
    once = {name: weight.grad.clone() for name, weight in first.model.named_parameters() if weight.requires_grad}
    host.run(batches, states)
    for name, weight in first.model.named_parameters():
        if weight.requires_grad:
            assert torch.allclose(weight.grad, 2 * once[name])
            assert weight.grad.stride() == weight.stride()


def test_a_pass_that_fails_leaves_gradients_and_random_states_alone(make, monkeypatch):
    made = make("lora.r=2", "lora.lora_dropout=0.5"), make("lora.r=3")
    host = Host(made[0].base)
    batches = {name: batch_of(each, [0, 1]) for name, each in zip("ab", made, strict=True)}
    for name, batch in batches.items():
        host.admit(name, batch.model)
    states = {name: state_of(3) for name in batches}
    before = states["a"].cpu.clone()

    def fail(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(torch.autograd, "grad", fail)
    with pytest.raises(RuntimeError, match="no"):
        host.run(batches, states)
    assert torch.equal(states["a"].cpu, before)
    assert all(weight.grad is None for each in made for weight in each.model.parameters())


def test_a_run_that_begins_again_is_computed_with_its_new_model(make):
    old, new, other = make("lora.r=2"), make("lora.r=2", "seed=5"), make("lora.r=3")
    host = Host(old.base)
    host.admit("a", old.model)
    host.admit("b", other.model)
    host.admit("a", new.model)
    host.run({"a": batch_of(new, [0]), "b": batch_of(other, [1])}, {name: state_of(0) for name in "ab"})
    assert not taken_gradients(old.model)
    assert taken_gradients(new.model)
    taken_gradients(other.model)


def test_a_dismissed_run_is_in_no_module(make):
    made = make("lora.r=2")
    host = Host(made.base)
    host.admit("a", made.model)
    host.dismiss("a")
    layers = [module for module in host.modules() if isinstance(module, PackedLayer)]
    assert layers
    assert not any(layer.terms for layer in layers)


def test_the_base_stays_as_it_was(make):
    made = make("lora.r=2")
    before = [type(module) for module in made.base.model.modules()]
    Host(made.base).admit("a", made.model)
    assert [type(module) for module in made.base.model.modules()] == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("lora.use_dora=true",), "variant of LoRA"),
        (("lora.init_lora_weights=mica",), "variant of LoRA"),
        (("lora.modules_to_save=[norm]",), "outside of its adapter"),
        (("lora.target_modules=[embed_tokens,q_proj]",), "Embedding"),
        (("lora.target_modules=[lm_head]", "lora.lora_dropout=0.1"), "output head"),
        (("peft=loha",), r"loha\.layer"),
        (("peft=prompt_tuning",), "adapts no module"),
    ],
)
def test_what_is_not_computed_here_is_refused(make, words, reason):
    made = make(*words)
    with pytest.raises(NotPackable, match=reason):
        Host(made.base).admit("a", made.model)


def test_a_base_with_a_dropout_of_its_own_is_refused(make):
    made = make("lora.r=2")
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16))
    base = replace(made.base, model=model)
    with pytest.raises(NotPackable, match=r"dropout of its own \(0\.1\)"):
        Host(base).admit("a", made.model)


def test_a_base_with_a_loss_of_its_own_is_refused(make):
    made = make("lora.r=2")
    host = Host(made.base)
    next(host.modules()).loss_type = "ForMaskedLM"
    with pytest.raises(NotPackable, match="a loss of its own"):
        host.admit("a", made.model)
