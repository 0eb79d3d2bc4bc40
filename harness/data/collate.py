"""Batches of tokenized rows: padding, labels, and which logits the labels need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.data.tokenize import IGNORED, TokenizedRow
from harness.errors import DataFault

if TYPE_CHECKING:
    import torch


def collate(examples: Sequence[TokenizedRow], pad_id: int, side: str) -> dict[str, "torch.Tensor"]:
    """``input_ids``, ``attention_mask`` and ``labels``: int64, shape (b, t), t the length of the longest.

    ``side``: ``right`` for training; ``left`` where generation goes on from the last column.
    Raises DataFault for a batch in which nothing is trained on.
    """
    import torch

    if side not in ("left", "right"):
        raise ValueError(f"side={side!r}: must be left or right")
    if all(example.prompt_length >= len(example.input_ids) for example in examples):
        raise DataFault("no row of this batch has a token that is trained on")
    longest = max(len(example.input_ids) for example in examples)

    def padded(values: Sequence[int], filler: int) -> list[int]:
        gap = [filler] * (longest - len(values))
        return gap + list(values) if side == "left" else list(values) + gap

    return {
        "input_ids": torch.tensor([padded(example.input_ids, pad_id) for example in examples]),
        "attention_mask": torch.tensor([padded([1] * len(example.input_ids), 0) for example in examples]),
        "labels": torch.tensor([padded(example.labels, IGNORED) for example in examples]),
    }


def positions_needed(batch: dict[str, "torch.Tensor"]) -> int:
    """How many of the last positions matter to the loss: from the one that predicts the first labelled token on.

    What transformers' models take as ``logits_to_keep``; at least 1. ``batch``: of ``collate``, or its ``labels``
    alone, on the CPU.
    """
    labelled = (batch["labels"] != IGNORED).any(dim=0).nonzero()
    length = batch["labels"].shape[1]
    return min(length, length - int(labelled[0]) + 1) if len(labelled) else 1


def with_needed_logits(batch: dict[str, "torch.Tensor"]) -> dict[str, Any]:
    """The batch, asking for no logits before those that its loss looks at; loss and gradients are the same.

    Prompts are most of a row and vocabularies are wide, so these logits can be most of a step's memory.
    ``shift_labels``, shape (b, k): what the last k positions are to predict, as transformers' losses take it.
    """
    from torch.nn import functional

    kept = positions_needed(batch)
    shifted = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    return {**batch, "logits_to_keep": kept, "shift_labels": shifted[:, -kept:].contiguous()}


def lesson_collate(examples: Sequence[TokenizedRow], pad_id: int, length: int = 512) -> dict[str, "torch.Tensor"]:
    """The published lesson's batch, exactly as written: to compare with (``trainer.objective=lesson``).

    Keys and types as in ``collate``; shape (b, ``length``). Prompt and answer are tokenised apart, with the
    tokenizer's start token each, padded on the right or cut to ``length``, and the answer's ids are the
    labels.

    Why it is wrong. The answer is no part of the input: its ids are the labels of the *prompt's* positions,
    so that the model learns to name token i+1 of the answer after token i of the prompt, which generation
    never asks for. Padding is trained on: its labels are the padding id where they should be -100, also
    where attention is masked, so that most of the loss is about padding. No end-of-text token is trained
    unless it happens to be the padding. A prompt or answer over ``length`` is cut without a word.

    One difference: a row that ``data.truncate`` has cut to ``data.max_tokens`` is cut here as well.
    """
    import torch

    def padded(ids: Sequence[int], filler: int) -> list[int]:
        return [*ids[:length], *[filler] * (length - len(ids))]

    prompts = [example.input_ids[: example.prompt_length] for example in examples]
    answers = [
        example.input_ids[: example.start] + example.input_ids[example.prompt_length : None if example.cut else -1]
        for example in examples
    ]
    return {
        "input_ids": torch.tensor([padded(ids, pad_id) for ids in prompts]),
        "attention_mask": torch.tensor([padded([1] * len(ids), 0) for ids in prompts]),
        "labels": torch.tensor([padded(ids, pad_id) for ids in answers]),
    }


def by_length(lengths: Sequence[int], batch_size: int, equal: bool = False) -> list[list[int]]:
    """Indices in batches of like length, longest first, each index exactly once.

    Longest first, so that a batch that does not fit in memory fails at the start. ``equal``: only rows of the
    same length share a batch, for methods whose logits change under padding.
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
