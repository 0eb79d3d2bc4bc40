"""The rows of a batch as one row without padding, whose attention stays within each row.

Linear layers, norms and losses treat each token by itself, so that padding costs them as much as text does: with rows
of mixed lengths a fifth of a batch. Joined end to end ("padding-free" training, as transformers'
``DataCollatorWithFlattening`` prepares it for flash attention) the rows need none. Attention is computed row by row,
causal and without a mask. Loss and gradients are those of the padded batch, up to rounding.

On a CPU only: on a GPU a call for each row costs more than the padding of it.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from harness.data.tokenize import IGNORED
from harness.models.network import base_network, kept_numbers
from harness.training.fused.head import SUPPORTED
from harness.training.row_weights import WEIGHTS

ATTENTION = "rows_apart"  # its name among transformers' implementations
ROWS = ("input_ids", "attention_mask", "labels")  # what a part of a batch has
INPUTS = frozenset({"input_ids", "attention_mask", "labels", "shift_labels", "logits_to_keep"})  # with_needed_logits

# Tokens of a pass. What it keeps for its backward pass grows with them; its time does not shrink by more than 2 % when
# they go from 512 to 1,500, on SmolLM2. On a small model it does, but there little is kept: a pass may keep so many
# bytes anyhow, by a rough count of the numbers that a layer keeps for each token.
TOKENS_AT_ONCE = 512
KEPT_ANYHOW = 256 << 20

Inputs = dict[str, Any]


def attend(
    module: nn.Module,
    query_bhtd: torch.Tensor,
    key_bgtd: torch.Tensor,
    value_bgtd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    row_lengths: Sequence[int],
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a joined batch, in the form that transformers calls.

    Shapes: query (1, heads, tokens, d), key and value (1, key heads, tokens, d); the result (1, tokens, heads, d).

    Args:
        row_lengths: tokens of each row, in order; they add up to the tokens of the batch.
    """
    split = [each.split(list(row_lengths), dim=2) for each in (query_bhtd, key_bgtd, value_bgtd)]
    rows = [
        functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attend)


@contextmanager
def joined_rows(
    model: nn.Module, inputs: Inputs, tokens: int | None = None, single: bool = False
) -> Iterator[list[Inputs]]:
    """Gives the batch joined, while the model's attention keeps to rows; as it is where that does not serve.

    ``why_padded`` must be None for the model, and its loss come from hidden states (``fused_head``), or there would be
    logits for every position. Keep this open until the backward pass is over: gradient checkpointing computes
    attention once more.

    Args:
        tokens: split the rows into parts of so many tokens, each to be passed forward and backward before the next,
            which keeps less in memory; None: one part.
        single: also give a batch of one row, which has no padding, in that form.
    """
    if not joins(model, inputs, single):
        yield [inputs]
        return
    config = base_network(model).config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        kept = [name for name in (*ROWS, WEIGHTS) if name in inputs]
        yield [joined({name: inputs[name][part] for name in kept}) for part in parts(lengths_of(inputs), tokens)]
    finally:
        config._attn_implementation = before


def parts(lengths: Sequence[int], tokens: int | None) -> list[slice]:
    """Consecutive rows of at most so many tokens together; a longer row stands alone.

    As few parts as that takes, and of these divisions the one whose largest part is smallest.
    """
    if tokens is None:
        return [slice(0, len(lengths))]
    fewest = len(_cut(lengths, tokens))
    low, high = 1, tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut(lengths, middle)) == fewest else (middle + 1, high)
    return _cut(lengths, high)


def _cut(lengths: Sequence[int], tokens: int) -> list[slice]:
    bounds, held = [0], 0
    for row, length in enumerate(lengths):
        if held and held + length > tokens:
            bounds.append(row)
            held = 0
        held += length
    return [slice(*each) for each in itertools.pairwise([*bounds, len(lengths)])]


def tokens_at_once(model: nn.Module) -> int:
    """How many tokens a pass should have at most."""
    kept_bytes = kept_numbers(base_network(model).config) * next(model.parameters()).element_size()
    return max(TOKENS_AT_ONCE, KEPT_ANYHOW // kept_bytes)


def lengths_of(inputs: Inputs) -> list[int]:
    """Tokens of each row."""
    lengths: list[int] = inputs["attention_mask"].sum(dim=1).tolist()
    return lengths


def joins(model: nn.Module, inputs: Inputs, single: bool = False) -> bool:
    """Whether this batch is joined: several rows, no other inputs than ``INPUTS``, all within the model's window."""
    rows, length = inputs["input_ids"].shape
    window = getattr(base_network(model).config, "sliding_window", None) or length
    return (single or rows > 1) and inputs.keys() - {WEIGHTS} == INPUTS and length <= window


def joined(inputs: Inputs) -> Inputs:
    """The batch, padded on the right, as one row.

    Gives ``input_ids``, ``position_ids`` (from 0 in each row), ``labels`` and ``shift_labels``, each of shape
    (1, tokens), and ``row_lengths``; of rows with weights also the weight of each token.
    """
    mask_bt, labels_bt, lengths = inputs["attention_mask"], inputs["labels"], lengths_of(inputs)
    text = mask_bt.flatten().nonzero()[:, 0]
    targets = functional.pad(labels_bt[:, 1:], (0, 1), value=IGNORED)  # a row's last token predicts nothing
    weights = {}
    if WEIGHTS in inputs:
        weights[WEIGHTS] = inputs[WEIGHTS].repeat_interleave(mask_bt.sum(dim=1))[None]
    return {
        **weights,
        "input_ids": inputs["input_ids"].flatten()[text][None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "labels": labels_bt.flatten()[text][None],
        "shift_labels": targets.flatten()[text][None],
        "row_lengths": lengths,
        "use_cache": False,
    }


def why_padded(model: nn.Module) -> str | None:
    """Why the batches of this model keep their padding; None if ``joined_rows`` serves."""
    config = base_network(model).config
    if next(model.parameters()).device.type != "cpu":
        return "on a GPU a call for each row costs more than padding"
    if config.model_type not in SUPPORTED:
        return "the model's forward pass has not been checked"
    if config._attn_implementation != "sdpa" or getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention is another one"
    if getattr(config, "attention_dropout", 0) or any(
        isinstance(each, nn.Dropout) and each.p > 0 for each in model.modules()
    ):
        return "dropout would draw other masks than for the padded batch"
    return None
