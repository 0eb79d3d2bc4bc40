"""Every method on tiny random models: its start, its training, its base, and each trait that it claims.

Models are trained once per case and architecture, and tests that read them leave them unchanged.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from harness.adapters.attach import attach
from harness.data.collate import with_needed_logits
from harness.errors import ModelFault
from harness.methods.registry import METHODS
from harness.scoring.losses import can_skip_logits
from tests.support.method_cases import (
    EXACT,
    SEED,
    UNFIT,
    batches,
    build,
    context,
    every_fit,
    every_quick_case,
    every_sheet,
    logits,
    parts,
    sheet,
    train,
    trained,
    traits,
)
from tests.support.tuners_models import VOCAB, base_model

KEEP_ALL = ("cpt",)  # computes a loss of its own, from all logits


@pytest.mark.parametrize(("case", "kind"), sorted(UNFIT))
def test_a_method_that_does_not_fit_the_architecture_is_refused_with_the_reason(case, kind):
    reason = "on nn.Linear only, and transformer.h.0.* is a Conv1D" if kind == "gpt2" else "Unsupported model type"
    with pytest.raises(ModelFault, match=f"does not fit this model: .*{reason}"):
        build(case, kind)


@pytest.mark.parametrize("case", [case for case, kind in sorted(UNFIT) if kind == "gpt2"])
def test_what_is_refused_on_gpt2_fails_there_in_peft(case, monkeypatch):
    monkeypatch.setattr("harness.adapters.block_sizes.refuse_conv1d", lambda *_: None)
    with pytest.raises((ModelFault, RuntimeError)):
        train(build(case, "gpt2"), case, steps=1)


@every_fit
def test_the_start_is_the_base_model_where_claimed(case, kind):
    distance = trained(case, kind).distance
    assert (distance < EXACT) == traits(case).identity_at_start, f"differs by {distance}"


@every_fit
def test_only_what_is_trainable_changes_and_the_loss_falls(case, kind):
    run = trained(case, kind)
    assert run.changed
    assert run.changed <= run.trainable
    assert run.losses[-1] < run.losses[0]


@every_fit
def test_logits_that_no_label_needs_may_be_left_out(case, kind):
    model, batch = trained(case, kind).model, next(batches())
    assert can_skip_logits(model) == (case not in KEEP_ALL)
    if case in KEEP_ALL:
        return
    found = []
    for given in (batch, with_needed_logits(batch)):
        model.zero_grad()
        outcome = model(**given)
        if outcome.loss.requires_grad:  # diff pruning has finished and no longer trains
            outcome.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append((outcome.loss.item(), torch.cat([each.flatten() for each in gradients] or [torch.zeros(1)])))
    model.zero_grad()
    assert outcome.logits.shape[1] == 6  # before each of five labels, and after the last
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-6)


@every_fit
def test_the_base_is_bit_identical_with_the_adapter_disabled(case, kind):
    model = trained(case, kind).model
    if case == "full":
        with pytest.raises(RuntimeError, match="keep_base"), model.disable_adapter():
            pass
        return
    with model.disable_adapter():
        same = torch.equal(logits(model), logits(base_model(kind)))
    assert same != traits(case).rewrites_base


@every_quick_case
def test_training_leaves_shared_base_weights_unchanged(case):
    base = base_model("qwen2")
    kept = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    shared = copy.deepcopy(base, {id(p): torch.nn.Parameter(p.data, requires_grad=False) for p in base.parameters()})
    method, settings, _ = parts(case)
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = attach(shared, method, settings, context())
    train(model, case, steps=1)
    if not traits(case).rewrites_base:
        assert all(torch.equal(parameter, kept[name]) for name, parameter in base.named_parameters())


def gradients(case: str, checkpointing: bool) -> list[torch.Tensor | None]:
    model = build(case, "qwen2").train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(1)
    model(**next(batches())).loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


@every_quick_case
def test_gradients_do_not_depend_on_checkpointing_where_it_works(case):
    plain = gradients(case, False)
    if not traits(case).checkpointing:
        with pytest.raises((ValueError, RuntimeError)):
            gradients(case, True)
        return
    for one, other in zip(plain, gradients(case, True), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@every_sheet
def test_dropout_acts_in_training_where_claimed(method):
    fields = [name for name in sheet(method) if name.endswith("dropout")]
    if method == "p_tuning":
        fields = ["encoder_dropout"]
        changes = {"encoder_dropout": 0.5, "encoder_reparameterization_type": "LSTM"}
    else:
        changes = dict.fromkeys(fields[-1:], 0.5)
    assert bool(fields) == METHODS[method].traits.dropout
    if not fields:
        return
    model = build(method, "qwen2", **changes)
    with torch.no_grad():
        for parameter in model.parameters():  # away from an identity that dropout cannot change
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))


@every_quick_case
def test_a_second_adapter_leaves_the_first_unchanged_where_claimed(case):
    model = build(case, "qwen2")
    expected = logits(model)

    def add() -> torch.Tensor:
        """Logits of the second at its start."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
        model.set_adapter("second")
        start = logits(model)
        model.set_adapter("default")
        return start

    if traits(case).multi_adapter:
        add()
        assert torch.equal(logits(model), expected)
    elif traits(case).rewrites_base and case not in ("full", "lora:corda"):  # PEFT warns alone
        assert not torch.allclose(add(), expected, atol=1e-3), "both start as the base"
    else:
        with pytest.raises(ValueError, match=r"adapter|task_ids|layer"):
            add()


@every_quick_case
def test_a_tied_embedding_is_trained_with_its_head_where_claimed_and_otherwise_unchanged(case):
    net, base = trained(case, "qwen2").model.get_base_model(), base_model("qwen2")
    with torch.no_grad():  # what the layers do: adapters may wrap them
        embedding = net.get_input_embeddings()(torch.arange(VOCAB))
        head = net.get_output_embeddings()(torch.eye(embedding.shape[1])).T
    assert torch.equal(embedding, head)
    assert torch.equal(embedding, base.get_input_embeddings().weight) != traits(case).tied_embeddings


def test_target_modules_that_match_nothing_name_the_layers():
    with pytest.raises(ModelFault, match=r"lora.target_modules=\[nowhere\]: nowhere matches no module .*q_proj"):
        build("lora", "qwen2", target_modules=["nowhere"])
