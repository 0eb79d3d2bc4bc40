"""Completion losses, the same in training-time validation and in scoring."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.data.collate import by_length, collate, positions_needed
from harness.data.tokenize import TokenizedRow
from harness.models.device import base_precision

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def mean_completion_loss(
    model: "PreTrainedModel | PeftModel",
    examples: Sequence[TokenizedRow],
    *,
    pad_id: int,
    batch_size: int,
) -> float:
    """Mean loss per completion token over all examples (nats); padding and prompt never count.

    Taken from the logits, not from the model's own loss, which may carry a method's penalty term. Rows are
    padded on the right, where padding reaches no text position, virtual tokens or not.
    """
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count, spare = 0.0, 0, can_skip_logits(model)
    lengths = [len(example.input_ids) for example in examples]
    with torch.no_grad(), base_precision(model):
        for batch in by_length(lengths, batch_size):
            tensors = collate([examples[index] for index in batch], pad_id, "right")
            given = {"logits_to_keep": positions_needed(tensors)} if spare else {}
            labels_bt = tensors.pop("labels").to(device)
            logits_btv = model(**{name: tensor.to(device) for name, tensor in tensors.items()}, **given).logits
            loss_sum, tokens = completion_loss_sum(logits_btv, labels_bt)
            total += float(loss_sum)
            count += int(tokens)
    model.train(was_training)
    return total / count


def completion_loss_sum(logits_btv: "torch.Tensor", labels_bt: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed cross-entropy of the labelled tokens (nats, float32), and their number.

    Virtual tokens put before the text lengthen the logits, and logits that nobody needs may be left out; so the two
    are set beside each other at their ends.
    """
    from torch.nn import functional

    length = min(logits_btv.shape[1], labels_bt.shape[1])
    predicting_btv, next_bt = logits_btv[:, -length:-1], labels_bt[:, -length:][:, 1:]
    kept = next_bt != -100  # only these positions are widened to float32
    loss = functional.cross_entropy(predicting_btv[kept].float(), next_bt[kept], reduction="sum")
    return loss, kept.sum()


def can_skip_logits(model: Any) -> bool:
    """Whether the model computes the logits of the last positions alone when it is asked to, and its loss from them.

    CPT computes a loss of its own, from all of them.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" not in inspect.signature(base.forward).parameters or base.loss_type not in (
        None,
        "ForCausalLM",
    ):
        return False
    return base is model or model.peft_config[str(model.active_adapter)].peft_type != "CPT"
