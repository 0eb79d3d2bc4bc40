"""Noise on the input embeddings while training (NEFTune, Jain et al. 2023, arXiv:2310.05914).

Each number of a row's embeddings gets one drawn uniformly from -1 to 1, times alpha / sqrt(L d): L is the row's own
length in tokens, without padding, and d the width of the embedding. Padding gets none. Numbers are drawn for the tokens
of the text alone, row by row, so that a batch gets the same ones padded or joined (``fused.rows``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from harness.errors import RunFault
from harness.models.network import base_network


@contextmanager
def noisy_embeddings(model: nn.Module, alpha: float | None, inputs: dict[str, Any]) -> Iterator[None]:
    """While this is open, the embeddings of the batch ``inputs`` get noise; with ``alpha`` None nothing changes.

    Raises:
        RunFault: the model did not embed the batch by its input embeddings, so that there was no noise.
    """
    if alpha is None:
        yield
        return
    lengths_n, text_bt = _rows(inputs)
    reached = []

    def add(module: nn.Module, args: Any, embedded_btd: torch.Tensor) -> torch.Tensor:
        if embedded_btd.shape[:2] != text_bt.shape:
            return embedded_btd
        reached.append(True)
        return embedded_btd + _noise(embedded_btd, lengths_n, text_bt, alpha)

    hook = base_network(model).get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
    if not reached:
        raise RunFault(
            f"trainer.neftune_alpha={alpha:g} has no effect: this model does not embed its batches by its input "
            "embeddings; set trainer.neftune_alpha=null"
        )


def _rows(inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token of the text, in order, the length of its row; and where the text is, (b, t)."""
    if "row_lengths" in inputs:  # joined: no padding
        text_bt = torch.ones_like(inputs["input_ids"], dtype=torch.bool)
        lengths_b = torch.tensor(inputs["row_lengths"], device=text_bt.device)
    else:
        text_bt = inputs["attention_mask"].bool()
        lengths_b = text_bt.sum(dim=1)
    return lengths_b.repeat_interleave(lengths_b), text_bt


def _noise(embedded_btd: torch.Tensor, lengths_n: torch.Tensor, text_bt: torch.Tensor, alpha: float) -> torch.Tensor:
    width, device = embedded_btd.shape[-1], embedded_btd.device
    drawn_nd = torch.empty(len(lengths_n), width, device=device).uniform_(-1, 1)
    scale_n = alpha / (lengths_n.to(device) * width).sqrt()
    noise_btd = torch.zeros(embedded_btd.shape, device=device)
    noise_btd[text_bt.to(device)] = drawn_nd * scale_n[:, None]
    return noise_btd.to(embedded_btd.dtype)
