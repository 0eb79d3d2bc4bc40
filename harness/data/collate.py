"""Batches of tokenized rows: padding, labels, and which logits the labels need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.data.tokenize import IGNORED, TokenizedRow, prompt_of
from harness.errors import DataFault

if TYPE_CHECKING:
    import torch


def collate(rows: Sequence[TokenizedRow], pad_id: int, side: str) -> dict[str, "torch.Tensor"]:
    """``input_ids``, ``attention_mask`` and ``labels``: int64, shape (b, t), t the length of the longest row.

    Args:
        side: of the padding; ``right`` for training, ``left`` if generation continues from the last column.

    Raises:
        DataFault: no token of the batch is trained on.
    """
    import torch

    if side not in ("left", "right"):
        raise ValueError(f"side={side!r}: must be left or right")
    if all(row.prompt_length >= len(row.input_ids) for row in rows):
        raise DataFault("no row of this batch has a token that is trained on")
    longest = max(len(row.input_ids) for row in rows)

    def padded(values: Sequence[int], filler: int) -> list[int]:
        padding = [filler] * (longest - len(values))
        return padding + list(values) if side == "left" else list(values) + padding

    return {
        "input_ids": torch.tensor([padded(row.input_ids, pad_id) for row in rows]),
        "attention_mask": torch.tensor([padded([1] * len(row.input_ids), 0) for row in rows]),
        "labels": torch.tensor([padded(row.labels, IGNORED) for row in rows]),
    }


def positions_needed(batch: dict[str, "torch.Tensor"]) -> int:
    """How many of the last positions matter to the loss, starting with the one that predicts the first label.

    At least 1; transformers' models take it as ``logits_to_keep``. ``batch``: from ``collate``, or its ``labels``
    (b, t) alone, on the CPU.
    """
    labeled = (batch["labels"] != IGNORED).any(dim=0).nonzero()
    length = batch["labels"].shape[1]
    return min(length, length - int(labeled[0]) + 1) if len(labeled) else 1


def with_needed_logits(batch: dict[str, "torch.Tensor"]) -> dict[str, Any]:
    """The batch, asking only for the logits that its loss reads; loss and gradients stay the same.

    Prompts are most of a row and vocabularies are wide, so the other logits can be most of a step's memory. Adds
    ``logits_to_keep``, k, and ``shift_labels``, shape (b, k): what the last k positions should predict, in the form
    that transformers' losses take.
    """
    from torch.nn import functional

    k = positions_needed(batch)
    shifted = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    return {**batch, "logits_to_keep": k, "shift_labels": shifted[:, -k:].contiguous()}


def lesson_collate(rows: Sequence[TokenizedRow], pad_id: int, length: int = 512) -> dict[str, "torch.Tensor"]:
    """The batch exactly as the published lesson makes it, for comparison (``trainer.objective=lesson``).

    Keys and types as in ``collate``; shape (b, ``length``). Prompt and answer are tokenized separately, each with the
    tokenizer's start token, padded on the right or cut to ``length``, and the answer's ids are the labels.

    Why it is wrong: the answer is not part of the input. Its ids are the labels of the *prompt's* positions, so the
    model learns to predict token i+1 of the answer after token i of the prompt, which generation never asks for.
    Padding is trained on: its labels are the padding id instead of -100, even where attention is masked, so that most
    of the loss is about padding. No end-of-text token is trained unless it happens to be the padding token. A prompt
    or answer longer than ``length`` is cut silently.

    One difference: a row that ``data.truncate`` has cut to ``data.max_tokens`` is cut here too.
    """
    import torch

    def padded(ids: Sequence[int], filler: int) -> list[int]:
        return [*ids[:length], *[filler] * (length - len(ids))]

    prompts = [prompt_of(row) for row in rows]
    answers = [row.input_ids[: row.start] + row.answer_ids for row in rows]
    return {
        "input_ids": torch.tensor([padded(ids, pad_id) for ids in prompts]),
        "attention_mask": torch.tensor([padded([1] * len(ids), 0) for ids in prompts]),
        "labels": torch.tensor([padded(ids, pad_id) for ids in answers]),
    }


def by_length(lengths: Sequence[int], batch_size: int, equal: bool = False) -> list[list[int]]:
    """Batches of indices with similar lengths, longest first, each index exactly once.

    Longest first, so that a batch that does not fit in memory fails at the start.

    Args:
        equal: only rows of the same length share a batch, for methods whose logits change under padding.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        last = batches[-1] if batches else []
        if not last or len(last) == batch_size or (equal and lengths[last[0]] != lengths[index]):
            batches.append([index])
        else:
            last.append(index)
    return batches
