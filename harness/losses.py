"""Completion losses, the same in training-time validation and in scoring."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from harness.tokens import Example, by_length, collate

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def mean_completion_loss(
    model: "PreTrainedModel | PeftModel",
    examples: Sequence[Example],
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
    total, count = 0.0, 0
    lengths = [len(example.input_ids) for example in examples]
    with torch.no_grad(), arithmetic(model):
        for batch in by_length(lengths, batch_size):
            tensors = collate([examples[index] for index in batch], pad_id, "right")
            labels_bt = tensors.pop("labels").to(device)
            logits_btv = model(**{name: tensor.to(device) for name, tensor in tensors.items()}).logits
            loss_sum, tokens = completion_loss_sum(logits_btv, labels_bt)
            total += float(loss_sum)
            count += int(tokens)
    model.train(was_training)
    return total / count


def completion_loss_sum(logits_btv: "torch.Tensor", labels_bt: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed cross-entropy of the labelled tokens (nats, float32), and their number.

    Virtual tokens put before the text lengthen the logits; only the last ``t`` positions are the text's.
    """
    from torch.nn import functional

    text_btv = logits_btv[:, -labels_bt.shape[1] :]
    predicting_btv, next_bt = text_btv[:, :-1], labels_bt[:, 1:]
    kept = next_bt != -100  # only these positions are widened to float32
    loss = functional.cross_entropy(predicting_btv[kept].float(), next_bt[kept], reduction="sum")
    return loss, kept.sum()


def arithmetic(model: Any) -> AbstractContextManager[Any]:
    """The precision of the base as loaded, in scoring as in training.

    Trainable weights are float32 on any base. Without this, full fine-tuning of a bfloat16 base would be scored
    in float32, unlike its baseline, and float32 norms could not feed bfloat16 layers.
    """
    import torch

    dtype = model.config.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(next(model.parameters()).device.type, dtype=dtype) if half else nullcontext()
