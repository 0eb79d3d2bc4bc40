"""Completion losses, the same for validation during training and for scoring."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.data.collate import by_length, collate, positions_needed
from harness.data.tokenize import TokenizedRow
from harness.methods.registry import hooks_of_type
from harness.models.device import base_precision

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

Told = Callable[[str, int, int], None]  # what is counted (loss, answer), rows that are done, and all of them


def untold(unit: str, rows: int, of: int) -> None:
    """Nobody watches."""


def mean_completion_loss(
    model: "PreTrainedModel | PeftModel",
    examples: Sequence[TokenizedRow],
    *,
    pad_id: int,
    batch_size: int,
    told: Told = untold,
) -> float:
    """Mean loss per completion token over all examples (nats); padding and prompt never count.

    Computed from the logits, not taken from the model's own loss, which may include a method's penalty. Rows are
    padded on the right, where padding affects no text position, with or without virtual tokens. Leaves the model in
    the mode, training or evaluation, that it was in.

    Args:
        batch_size: rows per forward pass; does not affect the result beyond rounding.
        told: is told how many rows are done.
    """
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count, done, skip_logits = 0.0, 0, 0, can_skip_logits(model)
    lengths = [len(example.input_ids) for example in examples]
    with torch.no_grad(), base_precision(model):
        for batch in by_length(lengths, batch_size):
            tensors = collate([examples[index] for index in batch], pad_id, "right")
            extra = {"logits_to_keep": positions_needed(tensors)} if skip_logits else {}
            labels_bt = tensors.pop("labels").to(device)
            logits_btv = model(**{name: tensor.to(device) for name, tensor in tensors.items()}, **extra).logits
            loss_sum, tokens = completion_loss_sum(logits_btv, labels_bt)
            total += float(loss_sum)
            count += int(tokens)
            done += len(batch)
            told("loss", done, len(examples))
    model.train(was_training)
    return total / count


def completion_loss_sum(logits_btv: "torch.Tensor", labels_bt: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed cross-entropy of the labeled tokens (nats, float32, scalar), and their number (scalar).

    Virtual tokens before the text make the logits longer than the labels, and skipped logits make them shorter; so
    the two are aligned at their ends.

    Args:
        logits_btv: [batch, time, vocabulary]; ``time`` may differ from that of the labels.
        labels_bt: [batch, time], -100 for tokens that do not count.
    """
    from torch.nn import functional

    length = min(logits_btv.shape[1], labels_bt.shape[1])
    predicting_btv, next_bt = logits_btv[:, -length:-1], labels_bt[:, -length:][:, 1:]
    labeled_bt = next_bt != -100  # only these positions are widened to float32
    loss = functional.cross_entropy(predicting_btv[labeled_bt].float(), next_bt[labeled_bt], reduction="sum")
    return loss, labeled_bt.sum()


def can_skip_logits(model: Any) -> bool:
    """Whether the model can compute only the logits of the last positions, and its loss from them.

    CPT needs all logits for its own loss.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return False
    if base.loss_type not in (None, "ForCausalLM"):
        return False
    return base is model or not hooks_of_type(model.peft_config[str(model.active_adapter)].peft_type).own_loss
