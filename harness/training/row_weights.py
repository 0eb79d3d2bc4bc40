"""The loss with a weight for each row: the weighted mean over the labeled tokens of an optimizer step.

The loss of a token counts as much as its row's weight, and the sum is divided by the sum of the weights of the step's
labeled tokens. With equal weights it is the usual loss. Validation and scores never see weights.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness.data.tokenize import IGNORED, TokenizedRow
from harness.errors import RunFault
from harness.models.network import base_network

WEIGHTS = "row_weights"  # of a batch: (b,), or of a joined batch (1, tokens)

Batch = dict[str, Any]


def with_weights(collate: Callable[[Sequence[TokenizedRow]], Batch]) -> Callable[[Sequence[TokenizedRow]], Batch]:
    """``collate`` that also gives the weights of its rows."""

    def collated(rows: Sequence[TokenizedRow]) -> Batch:
        return {**collate(rows), WEIGHTS: torch.tensor([row.row.weight for row in rows], dtype=torch.float32)}

    return collated


def weight_of(batches: Sequence[Batch]) -> torch.Tensor:
    """The sum of the weights of all labeled tokens of these batches, by which their loss is divided."""
    total = torch.zeros(())
    for batch in batches:
        labels_bt = batch["shift_labels"] if "shift_labels" in batch else batch["labels"][..., 1:]
        total = total.to(labels_bt.device) + ((labels_bt != IGNORED).sum(dim=1) * batch[WEIGHTS]).sum()
    return total


@contextmanager
def weighted_loss(model: nn.Module, weights: torch.Tensor | None) -> Iterator[None]:
    """While this is open, the model's loss is weighted; None: it stays as it is.

    Args:
        weights: (b,) for each row, or (1, tokens) for each token of a joined batch.

    Raises:
        RunFault: the model computed a loss of its own.
    """
    if weights is None:
        yield
        return
    network = base_network(model)
    before, asked = network.loss_function, []
    per_token_bt = weights[:, None] if weights.ndim == 1 else weights
    weigh = (
        partial(before, weights_bt=per_token_bt)
        if getattr(before, "weighs", False)
        else partial(mean_loss, weights_bt=per_token_bt)
    )

    def loss(*args: Any, **kwargs: Any) -> torch.Tensor:
        asked.append(True)
        found: torch.Tensor = weigh(*args, **kwargs)
        return found

    network.loss_function = loss
    try:
        yield
    finally:
        network.loss_function = before
    if not asked:
        raise RunFault(
            "this model computes a loss of its own, which rows cannot be weighted in; set data.columns.weight=null and "
            "data.class_weights=null"
        )


def mean_loss(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    vocab_size: Any = None,
    num_items_in_batch: Any = None,
    ignore_index: int = IGNORED,
    shift_labels: torch.Tensor | None = None,
    *,
    weights_bt: torch.Tensor,
    **_: Any,
) -> torch.Tensor:
    """As transformers' ``ForCausalLMLoss``, each token times its weight: divided by ``num_items_in_batch``, the sum of
    the weights of the whole step, or by that of this batch."""
    if shift_labels is None:
        assert labels is not None
        shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    targets_bt = shift_labels.to(logits.device)
    has_label = targets_bt != ignore_index
    weights_n = weights_bt.to(logits.device).expand(targets_bt.shape)[has_label]
    losses_n = functional.cross_entropy(logits[has_label].float(), targets_bt[has_label], reduction="none")
    count = weights_n.sum() if num_items_in_batch is None else num_items_in_batch
    return (losses_n * weights_n).sum() / (count.to(logits.device) if isinstance(count, torch.Tensor) else count)
