"""Scores of a model under one protocol: losses, generated answers and their metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.config import schema
from harness.data.tokenize import TokenizedRow, prompt_of
from harness.errors import RunFault
from harness.scoring.catalog import compute_metrics
from harness.scoring.generate import generate
from harness.scoring.losses import mean_completion_loss

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Scores:
    """Values by name (loss in nats per completion token, metrics 0..100), and what each metric was."""

    values: dict[str, float]
    signatures: dict[str, str]
    answers: list[str] = field(repr=False)


def score(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    held_out: Sequence[TokenizedRow],
    scoring: schema.Scoring,
    *,
    equal_lengths: bool,
    seed: int,
) -> Scores:
    """Score ``examples`` by loss and by generated answers, and ``held_out`` text by loss alone.

    Args:
        equal_lengths: generate in batches of one prompt length, for methods that left padding disturbs.
        seed: of sampled decoding; greedy decoding draws nothing.

    Raises:
        RunFault: the loss on ``examples`` is not finite, so that no score would mean anything.
    """
    pad_id = int(tokenizer.pad_token_id)
    loss = mean_completion_loss(model, examples, pad_id=pad_id, batch_size=scoring.loss_batch_size)
    if not math.isfinite(loss):
        raise RunFault(
            f"the loss on scoring.split={scoring.split} is not finite ({loss}); lower trainer.learning_rate, or use "
            "model.dtype=float32 if the base model's own loss is not finite"
        )
    values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if held_out:
        values["forgetting_loss"] = mean_completion_loss(
            model, held_out, pad_id=pad_id, batch_size=scoring.loss_batch_size
        )
    if not scoring.metrics:
        return Scores(values, {}, [])
    torch.manual_seed(seed)
    answers = generate(
        model,
        tokenizer,
        [prompt_of(example) for example in examples],
        scoring.generation,
        equal_lengths=equal_lengths,
    )
    references = [[example.row.output] for example in examples]
    targets = [example.row.target or "" for example in examples]
    found, signatures = compute_metrics(scoring.metrics, answers, references, targets, scoring.tokenize)
    return Scores(values | found, signatures, answers)
