"""Tokens: rows become ids with a mask, are audited, and are put into batches.

Where the prompt ends: prompt and completion are tokenised apart and joined. Tokenised together, a merge
across the border could give the prompt other tokens in training than it has when the model is asked to go
on from it; apart, both are the same by construction. The price is that a word piece never spans the border.

What is trained: the completion and one end-of-text token. Prompt and padding are -100.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.data import SPLITS, Rows, bad_rows_fault
from harness.errors import DataFault, ModelFault
from harness.prompts import render, require_template
from harness.rows import BadRow, Row
from harness.schema import Data, Objective, OnBadRow, Template

if TYPE_CHECKING:
    import torch

IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass(frozen=True)
class Example:
    """Ids of prompt, completion and end-of-text token; the first ``prompt_length`` (>= 1) are prompt."""

    input_ids: tuple[int, ...]
    prompt_length: int
    row: Row
    prompt: str
    cut: bool = False  # the completion's tail, with its end-of-text token, did not fit
    start: int = 0  # how many of the first ids are the tokenizer's own start token

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the same length as ``input_ids``, not shifted (the model's loss shifts)."""
        return (IGNORED,) * self.prompt_length + self.input_ids[self.prompt_length :]


@dataclass(frozen=True)
class Tokenised:
    """Examples of each split in the rows' order; over all splits, the rows dropped here and how many cut."""

    splits: dict[str, list[Example]]
    bad: tuple[BadRow, ...]
    cut: int


def tokenise(rows: Rows, data: Data, tokenizer: Any) -> Tokenised:
    """Every row as an example of at most ``data.max_tokens`` ids.

    A row is bad when its prompt fills the window, when it is too long and ``data.truncate`` is off, when the
    chat template refuses it, or when its output has no token or spells the end-of-text token. With
    ``data.truncate`` the completion's tail is cut and counted, never the prompt, never the whole completion.
    Raises DataFault for bad rows unless ``data.on_bad_row=skip``, and for a split that they leave empty;
    ModelFault for a tokenizer that lacks an end-of-text token or the chat template asked for.
    """
    require_template(data.template, tokenizer)
    if tokenizer.eos_token_id is None:
        name = tokenizer.name_or_path or "this model"
        raise ModelFault(
            f"model: the tokenizer of {name} has no end-of-text token (eos_token), so that a tuned model"
            " would never learn to stop; set eos_token in its tokenizer_config.json"
        )
    splits: dict[str, list[Example]] = {}
    refused: dict[str, list[BadRow]] = {}
    for name in SPLITS:
        splits[name], refused[name] = _examples(rows.splits[name], data, tokenizer)
    # Sorted, because splits that are cut from one file mix its rows.
    bad = sorted((row for name in SPLITS for row in refused[name]), key=lambda row: (row.source, row.number))
    if bad and data.on_bad_row is OnBadRow.error:
        raise bad_rows_fault(bad, sum(len(rows.splits[name]) for name in SPLITS))
    for name in SPLITS:
        if rows.splits[name] and not splits[name]:
            raise DataFault(
                f"data.max_tokens={data.max_tokens}: all {len(rows.splits[name])} rows of the {name} split"
                f" are refused (the first: {refused[name][0].reason}); raise data.max_tokens or mend the data"
            )
    return Tokenised(splits, tuple(bad), sum(example.cut for name in SPLITS for example in splits[name]))


def prompt_ids(prompts: Sequence[str], template: Template, tokenizer: Any) -> list[list[int]]:
    """Ids of rendered prompts as the model sees them in training, scoring and generation.

    The tokenizer's start token is added where it has one, except with ``chat``, whose text already has it; an
    end-of-text token that some tokenizers append is taken off again, because the text goes on.
    """
    ids = _ids(prompts, tokenizer, special=template is not Template.chat)
    if template is Template.chat:
        return ids
    return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in ids]


def audit(
    examples: Sequence[Example], refused_rows: int = 0, objective: Objective = Objective.completion
) -> dict[str, int | str]:
    """What a pass over these training examples trains on; padding is the training loop's to add.

    ``supervised_tokens`` and ``prompt_tokens`` count ids; ``rows``, ``cut_rows`` and ``refused_rows``
    (handed through: all rows left out) count rows; ``supervised_sha256`` is over the supervised ids, row by
    row in order. The lesson's labels are counted as its collator makes them: ``supervised_padding_tokens`` of
    them are padding. Raises DataFault for a row with no supervised token.
    """
    counted = _lesson_audit(examples) if objective is Objective.lesson else _completion_audit(examples)
    return {
        **counted,
        "rows": len(examples),
        "refused_rows": refused_rows,
        "cut_rows": sum(example.cut for example in examples),
    }


def _completion_audit(examples: Sequence[Example]) -> dict[str, int | str]:
    total = hashlib.sha256()
    for example in examples:
        supervised = example.input_ids[example.prompt_length :]
        if not supervised:
            row = example.row
            raise DataFault(f"{row.source}, row {row.number}: no token of its completion is trained on")
        total.update(" ".join(map(str, supervised)).encode() + b"\n")
    prompt_tokens = sum(example.prompt_length for example in examples)
    return {
        "supervised_tokens": sum(len(example.input_ids) for example in examples) - prompt_tokens,
        "prompt_tokens": prompt_tokens,
        "supervised_sha256": total.hexdigest(),
    }


def _lesson_audit(examples: Sequence[Example], pad_id: int = -1) -> dict[str, int | str]:
    """Each row's labels but the first, which nothing predicts; padding under an id that no text has."""
    total, supervised, padding, prompt = hashlib.sha256(), 0, 0, 0
    for example in examples:
        batch = lesson_collate([example], pad_id)
        labels = batch["labels"][0, 1:].tolist()
        total.update(" ".join(map(str, labels)).encode() + b"\n")
        supervised += len(labels)
        padding += labels.count(pad_id)
        prompt += int(batch["attention_mask"].sum())
    return {
        "supervised_tokens": supervised,
        "supervised_padding_tokens": padding,
        "prompt_tokens": prompt,
        "supervised_sha256": total.hexdigest(),
    }


def collate(examples: Sequence[Example], pad_id: int, side: str) -> dict[str, "torch.Tensor"]:
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


def predicting(batch: dict[str, "torch.Tensor"]) -> int:
    """How many of the last positions matter to the loss: from the one that predicts the first labelled token on.

    What transformers' models take as ``logits_to_keep``; at least 1. ``batch``: of ``collate``, or its ``labels``
    alone, on the CPU.
    """
    labelled = (batch["labels"] != IGNORED).any(dim=0).nonzero()
    length = batch["labels"].shape[1]
    return min(length, length - int(labelled[0]) + 1) if len(labelled) else 1


def sparing(batch: dict[str, "torch.Tensor"]) -> dict[str, Any]:
    """The batch, asking for no logits before those that its loss looks at; loss and gradients are the same.

    Prompts are most of a row and vocabularies are wide, so these logits can be most of a step's memory.
    ``shift_labels``, shape (b, k): what the last k positions are to predict, as transformers' losses take it.
    """
    from torch.nn import functional

    kept = predicting(batch)
    shifted = functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    return {**batch, "logits_to_keep": kept, "shift_labels": shifted[:, -kept:].contiguous()}


def lesson_collate(examples: Sequence[Example], pad_id: int, length: int = 512) -> dict[str, "torch.Tensor"]:
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


def _examples(rows: Sequence[Row], data: Data, tokenizer: Any) -> tuple[list[Example], list[BadRow]]:
    rendered: list[tuple[Row, str, str]] = []
    bad: list[BadRow] = []
    for row in rows:
        try:
            rendered.append((row, *render(row, data.template, tokenizer)))
        except DataFault as fault:
            bad.append(BadRow(row.source, row.number, str(fault)))
    prompts = prompt_ids([prompt for _, prompt, _ in rendered], data.template, tokenizer)
    completions = _ids([completion for _, _, completion in rendered], tokenizer, special=False)
    examples: list[Example] = []
    for (row, prompt, _), head, tail in zip(rendered, prompts, completions, strict=True):
        reason = _unfit(head, tail, data, tokenizer)
        if reason:
            bad.append(BadRow(row.source, row.number, reason))
            continue
        ids = (*head, *tail, tokenizer.eos_token_id)
        cut = len(ids) > data.max_tokens
        start = int(tokenizer.bos_token_id is not None and head[0] == tokenizer.bos_token_id)
        examples.append(Example(ids[: data.max_tokens], len(head), row, prompt, cut, start))
    return examples, bad


def _unfit(prompt: Sequence[int], completion: Sequence[int], data: Data, tokenizer: Any) -> str | None:
    """Why a row cannot be an example; None when it can."""
    window = f"data.max_tokens={data.max_tokens}"
    if not prompt:
        return "its prompt has no token in this model's vocabulary"
    if not completion:
        return "its output has no token in this model's vocabulary"
    if tokenizer.eos_token_id in completion:
        return f"its output spells the end-of-text token {tokenizer.eos_token!r}, where generation would stop"
    if len(prompt) >= data.max_tokens:
        return f"its prompt fills the whole window ({len(prompt)} tokens, {window})"
    length = len(prompt) + len(completion) + 1
    if length > data.max_tokens and not data.truncate:
        return f"it is {length} tokens long ({window}; data.truncate=true would cut the end of its output)"
    return None


def _ids(texts: Sequence[str], tokenizer: Any, special: bool) -> list[list[int]]:
    if not texts:
        return []
    # One call for all: the fast tokenizers' own loop. Too long is judged here, so no warning about it.
    options = {"add_special_tokens": special, "return_attention_mask": False, "verbose": False}
    return tokenizer(list(texts), **options)["input_ids"]
