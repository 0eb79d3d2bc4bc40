"""Cross-entropy at the positions that have a label, from hidden states, without a tensor of all logits.

The rows of hidden states are multiplied with the output head in chunks; each chunk's logits become its losses and,
when training, at once the gradient of its hidden states, and are forgotten (as in Liger-Kernel's fused linear
cross-entropy, Hsu et al. 2024, arXiv:2410.10989). The head must be frozen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness.data.tokenize import IGNORED
from harness.models.network import base_network, is_whole
from harness.scoring.losses import CHUNK_BYTES

# Architectures whose forward pass gives the output of the head, unchanged, to the loss; read in their source, and
# tested against the loss without this module.
SUPPORTED = frozenset(
    {
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi3", "smollm3", "olmo2", "gpt_neox"),
    }
)

# Float32 logits at a time: what fits beside the head in a cache is faster, but each chunk reads the head once.
LOGITS_AT_ONCE = CHUNK_BYTES // 4


class HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropies of hidden states (m, d) against targets (m,), through a head (v, d), (v,) or None."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        shares_m: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The sum in nats, float32; with ``shares_m`` each target counts so much."""
        train = ctx.needs_input_grad[0]
        grad_md = torch.empty_like(hidden) if train else None
        losses = []
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = functional.linear(hidden[part], weight, bias).float()
            target = targets[part, None]
            norm = torch.logsumexp(logits, dim=-1, keepdim=True)
            loss = norm - logits.gather(1, target)
            losses.append((loss if shares_m is None else loss * shares_m[part, None]).sum())
            if grad_md is not None:
                shares = logits.sub_(norm).exp_()
                shares.scatter_add_(1, target, torch.full_like(target, -1, dtype=shares.dtype))
                shares = shares if shares_m is None else shares * shares_m[part, None]
                torch.mm(shares.to(weight.dtype), weight, out=grad_md[part])
        ctx.save_for_backward(*([] if grad_md is None else [grad_md]))
        return torch.stack(losses).sum() if losses else hidden.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        """Gradient of the hidden states."""
        [grad_md] = ctx.saved_tensors
        return (grad_md * grads[0]).to(grad_md.dtype), None, None, None, None


@contextmanager
def fused_head(model: nn.Module) -> Iterator[bool]:
    """While this is open, the model's loss comes from ``HeadLoss`` and its output ``logits`` are hidden states.

    Gives False, and changes nothing, where that does not serve: see ``why_not``.
    """
    if why_not(model) is not None:
        yield False
        return
    network = base_network(model)
    head = network.get_output_embeddings()

    def loss(logits: torch.Tensor, labels: Any = None, vocab_size: Any = None, **settings: Any) -> torch.Tensor:
        return _mean_loss(logits, labels, head, **settings)

    loss.weighs = True  # type: ignore[attr-defined]  # takes ``weights_bt`` (training/row_weights.py)
    before = network.loss_function
    head.forward = _unchanged
    network.loss_function = loss
    try:
        yield True
    finally:
        del head.forward
        network.loss_function = before


def why_not(model: nn.Module) -> str | None:
    """Why the model's loss needs its logits; None if ``fused_head`` serves."""
    network = base_network(model)
    config = network.config
    if getattr(config, "model_type", None) not in SUPPORTED:
        return "its forward pass has not been checked"
    if getattr(config, "final_logit_softcapping", None) is not None:
        return "it bends its logits"
    head = network.get_output_embeddings()
    if type(head) is not nn.Linear or not all(map(is_whole, head.parameters())):
        return "its output head is wrapped, quantized or sharded"
    if any(each.requires_grad for each in head.parameters()):
        return "its output head trains"
    if head._forward_hooks or "forward" in vars(head):
        return "its output head has hooks"
    return None


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _mean_loss(
    hidden_btd: torch.Tensor,
    labels: torch.Tensor | None,
    head: nn.Linear,
    num_items_in_batch: Any = None,
    ignore_index: int = IGNORED,
    shift_labels: torch.Tensor | None = None,
    weights_bt: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """As transformers' ``ForCausalLMLoss``: the sum over the step's number of tokens, or the mean of the batch.

    With ``weights_bt`` each token counts so much, and the number of tokens is the sum of their weights.
    """
    if shift_labels is None:
        assert labels is not None
        shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    targets = shift_labels.to(hidden_btd.device)
    has_label = targets != ignore_index
    dtype = head.weight.dtype
    weights_m = None if weights_bt is None else weights_bt.to(targets.device).expand(targets.shape)[has_label]
    with torch.autocast(hidden_btd.device.type, enabled=False):
        total: torch.Tensor = HeadLoss.apply(
            hidden_btd[has_label].to(dtype), head.weight, head.bias, targets[has_label], weights_m
        )
    own = has_label.sum() if weights_m is None else weights_m.sum()
    count = own if num_items_in_batch is None else num_items_in_batch
    return total / (count.to(total.device) if isinstance(count, torch.Tensor) else count)
