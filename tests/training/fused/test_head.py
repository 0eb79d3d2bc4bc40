"""Losses without all logits against transformers' own."""

import pytest
import torch
import transformers
from torch import nn

from harness.data.collate import with_needed_logits
from harness.training.fused import head
from harness.training.fused.head import HeadLoss, fused_head, why_not
from tests.support.batches import example_batch
from tests.support.runs import disturbed, prepared, write_rows

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def small(kind: str) -> nn.Module:
    """A model of this architecture with random weights."""
    config = transformers.AutoConfig.for_model(kind, **SIZES, **HEADS)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).requires_grad_(False)


def batch_of(needed: bool) -> dict:
    ids = torch.arange(2, 26).view(2, 12) % 90
    labels = ids.clone()
    labels[0, :5] = labels[1, :8] = -100
    labels[1, -2:] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return with_needed_logits(batch) if needed else batch


def loss_and_gradient(model, batch, items, fuse):
    """The loss and its gradient with respect to the input embeddings, which pass through every layer."""
    batch = dict(batch)
    embedded = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    if fuse:
        with fused_head(model) as used:
            assert used
            loss = model(inputs_embeds=embedded, num_items_in_batch=items, **batch).loss
    else:
        loss = model(inputs_embeds=embedded, num_items_in_batch=items, **batch).loss
    loss.backward()
    return loss.detach(), embedded.grad


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("items", [None, 40])
@pytest.mark.parametrize("kind", sorted(head.SUPPORTED))
def test_loss_and_gradient_are_those_of_the_architecture(kind, items, needed, monkeypatch):
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", 4 * 97)  # several chunks
    model, batch = small(kind), batch_of(needed)
    own = loss_and_gradient(model, batch, items, fuse=False)
    fused = loss_and_gradient(model, batch, items, fuse=True)
    torch.testing.assert_close(fused[0], own[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fused[1], own[1], rtol=1e-4, atol=1e-7)
    logits = model(input_ids=batch["input_ids"]).logits
    assert logits.shape[-1] == 97  # the head is itself again


def test_chunks_do_not_change_the_sum(monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16), torch.randn(97, 16)
    targets = torch.randint(0, 97, (50,))
    found = {}
    for size in (97, 7 * 97, 97 * 1000):
        monkeypatch.setattr(head, "LOGITS_AT_ONCE", size)
        rows = hidden.clone().requires_grad_()
        loss = HeadLoss.apply(rows, weight, None, targets)
        (3 * loss).backward()
        found[size] = loss.detach(), rows.grad
    exact = hidden.double().requires_grad_()
    total = nn.functional.cross_entropy(exact @ weight.double().T, targets, reduction="sum")
    (3 * total).backward()
    for loss, gradient in found.values():
        torch.testing.assert_close(loss, total.detach().float(), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(gradient, exact.grad.float(), rtol=1e-4, atol=1e-5)


def test_no_label_is_a_loss_of_zero():
    loss = HeadLoss.apply(torch.zeros(0, 16), torch.randn(97, 16), None, torch.zeros(0, dtype=torch.long))
    assert float(loss) == 0


def test_a_trained_head_a_bent_logit_and_an_unknown_model_keep_their_logits():
    model = small("qwen2")
    assert why_not(model) is None
    model.get_output_embeddings().weight.requires_grad_()
    assert "trains" in why_not(model)
    bent = small("gemma2")
    assert "not been checked" in why_not(bent)
    model = small("gemma3_text")
    model.config.final_logit_softcapping = 30.0
    assert "bends" in why_not(model)
    with fused_head(model) as used:
        assert used is False
        assert model(**batch_of(False)).logits.shape[-1] == 97


def test_an_adapter_trains_alike_with_both(random_qwen2, tmp_path):
    made = prepared(random_qwen2, write_rows(tmp_path / "rows"), tmp_path, "peft=lora")
    model = disturbed(made.model).train()
    batch = example_batch(made)
    found = []
    for fuse in (False, True):
        model.zero_grad()
        if fuse:
            with fused_head(model) as used:
                assert used
                loss = model(**batch).loss
        else:
            loss = model(**batch).loss
        loss.backward()
        found.append([loss.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)])
    for own, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, own, rtol=1e-4, atol=1e-6)
