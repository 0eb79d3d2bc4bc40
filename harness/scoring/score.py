"""Scores of a model under one protocol: losses, and metrics of generated answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.config import schema
from harness.data.tokenize import TokenizedRow, prompt_of
from harness.errors import RunFault
from harness.scoring.compute import compute_metrics
from harness.scoring.generate import generate
from harness.scoring.losses import mean_completion_loss

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LARGEST_EXPONENT = 700.0  # exp of more overflows a float


@dataclass(frozen=True)
class Scores:
    """What scoring a model returns."""

    values: dict[str, float]  # by name in the catalog, in its unit
    signatures: dict[str, str]  # of each metric: how its value was computed
    answers: list[str] = field(repr=False)  # one per scored row; empty without metrics


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
    """Score ``examples`` by loss and by generated answers, and ``held_out`` text by loss only.

    Args:
        examples: rows of the scored split.
        held_out: general text, for ``forgetting_loss``; empty: that score is left out.
        scoring: the protocol; without metrics, no answers are generated.
        equal_lengths: generate in batches of one prompt length, for methods whose output depends on left padding.
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
    values = {"loss": loss, "perplexity": math.exp(min(loss, LARGEST_EXPONENT))}
    if held_out:
        values["forgetting_loss"] = mean_completion_loss(
            model, held_out, pad_id=pad_id, batch_size=scoring.loss_batch_size
        )
    if not scoring.metrics:
        return Scores(values, {}, [])
    torch.manual_seed(seed)
    prompts = [prompt_of(example) for example in examples]
    answers = generate(model, tokenizer, prompts, scoring.generation, equal_lengths=equal_lengths)
    references = [[example.row.output] for example in examples]
    targets = [example.row.target or "" for example in examples]
    metrics, signatures = compute_metrics(scoring.metrics, answers, references, targets, scoring.tokenize)
    return Scores(values | metrics, signatures, answers)
