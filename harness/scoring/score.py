"""Scores of a model under one protocol: losses, and metrics of generated answers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.config import schema
from harness.data.language import script_of
from harness.data.tokenize import TokenizedRow, prompt_of
from harness.errors import RunFault
from harness.scoring.batching import (
    BatchCheck,
    Batching,
    check_batches,
    completion_logits,
    largest_difference,
    rows_to_check,
    tolerance,
)
from harness.scoring.catalog import AUTO, JUDGE, TOKENIZE_OF_SCRIPT, definition, reads_answers
from harness.scoring.choice_scores import choice_scores, needs_unconditional
from harness.scoring.choices import weigh
from harness.scoring.compute import compute_with_rows
from harness.scoring.custom import columns_of, definitions
from harness.scoring.generate import Answer, generate, reference_text
from harness.scoring.judge import grade
from harness.scoring.lm_harness import Results, run_tasks, task_scores
from harness.scoring.losses import Told, mean_completion_loss, untold
from harness.scoring.merging import can_merge, merged

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LARGEST_EXPONENT = 700.0  # exp of more overflows a float


@dataclass(frozen=True)
class Scores:
    """What scoring a model returns."""

    values: dict[str, float]  # by name in the catalog, in its unit
    signatures: dict[str, str]  # of each metric: how its value was computed
    answers: list[str] = field(repr=False)  # one per scored row: generated, else the chosen option; or empty
    cut: int | None = None  # answers that reached max_new_tokens before an end; None if none was generated
    notes: list[str] = field(default_factory=list)  # what the check of batches found
    # Of each score that is a mean over rows, its value in each row, in its unit.
    rows: dict[str, list[float]] = field(default_factory=dict, repr=False)
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)  # of metrics of the user's own
    choices: list[dict[str, Any]] = field(default_factory=list, repr=False)  # of each row: the options' figures
    details: dict[str, Any] = field(default_factory=dict, repr=False)  # figures of classes, calibration, tasks
    errors: dict[str, float] = field(default_factory=dict)  # standard error of each score that comes with one


def score(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    held_out: Sequence[TokenizedRow],
    scoring: schema.Scoring,
    *,
    stops: Sequence[int],
    equal_lengths: bool,
    seed: int,
    told: Told = untold,
) -> Scores:
    """Score ``examples`` by loss, options and generated answers, ``held_out`` text by loss only, then run tasks.

    Args:
        examples: rows of the scored split.
        held_out: general text, for ``forgetting_loss``; empty: that score is left out.
        scoring: the protocol; without metrics, no answers are generated.
        stops: ids that end an answer.
        equal_lengths: generate in batches of one prompt length, where left padding is known to change the answers; a
            check of a few rows finds the other cases.
        seed: of sampled decoding; greedy decoding draws nothing.
        told: is told how many rows have a loss, then how many are answered.

    Raises:
        RunFault: the loss on ``examples`` is not finite, so that no score would mean anything; or a task of
            lm-evaluation-harness fails.
    """
    model.eval()
    with _as_merged(model, examples, int(tokenizer.pad_token_id)) as scored:
        check = check_batches(scored, tokenizer, examples, scoring, stops=stops, equal_lengths=equal_lengths)
        losses = _losses(scored, tokenizer, examples, held_out, scoring, check, told)
        found = _choices(scored, tokenizer, examples, scoring, check, told)
        answers = None
        if any(map(reads_answers, scoring.metrics)):
            torch.manual_seed(seed)
            single = check.answers is Batching.single
            answers = generate(
                scored,
                tokenizer,
                [prompt_of(example) for example in examples],
                replace(scoring.generation, batch_size=1) if single else scoring.generation,
                stops=stops,
                equal_lengths=check.answers is Batching.equal,
                refill=check.answers is Batching.refilled,
                told=told,
            )
    if answers is not None:
        found = _with_answers(found, answers, examples, tokenizer, scoring)
    found = replace(found, values=losses | found.values, notes=list(check.notes))
    return _with_tasks(found, run_tasks(model, tokenizer, scoring.lm_eval, one_by_one=equal_lengths))


def _with_answers(
    found: Scores,
    answers: Sequence[Answer],
    examples: Sequence[TokenizedRow],
    tokenizer: "PreTrainedTokenizerBase",
    scoring: schema.Scoring,
) -> Scores:
    """The scores with those of metrics that read answers."""
    references = [[reference_text(text, tokenizer) for text in example.row.all_references] for example in examples]
    targets = [example.row.target or "" for example in examples]
    texts = [answer.text for answer in answers]
    tokenize = scoring.tokenize
    if tokenize == AUTO:  # the plan was made where the rows could not be read
        tokenize = TOKENIZE_OF_SCRIPT[script_of(text for row in references for text in row)]
    names = [name for name in scoring.metrics if reads_answers(name) and name != JUDGE]
    metrics, signatures, of_rows = compute_with_rows(names, texts, references, targets, tokenize, columns_of(examples))
    if JUDGE in scoring.metrics:
        grades = grade(scoring.judge, [example.row for example in examples], references, texts)
        metrics[JUDGE], signatures[JUDGE], of_rows[JUDGE] = grades.value, grades.signature, grades.rows
    return replace(
        found,
        values=metrics | found.values,
        signatures=signatures | found.signatures,
        answers=texts,
        cut=sum(answer.cut for answer in answers),
        rows=of_rows | found.rows,
        definitions=definitions(metrics),
    )


def _with_tasks(found: Scores, tasks: Results) -> Scores:
    """The scores with those of lm-evaluation-harness."""
    if not tasks.values:
        return found
    return replace(
        found,
        values=found.values | tasks.values,
        signatures=found.signatures | tasks.signatures,
        definitions=found.definitions | {name: definition(score) for name, score in task_scores(tasks).items()},
        details=found.details | {"lm_eval": tasks.details},
        errors=tasks.errors,
    )


def _choices(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    scoring: schema.Scoring,
    check: BatchCheck,
    told: Told,
) -> Scores:
    """Scores of the options of each row; empty without such metrics."""
    names = [name for name in scoring.metrics if not reads_answers(name)]
    if not names:
        return Scores({}, {}, [])
    weighed = weigh(
        model,
        tokenizer,
        examples,
        batch_size=1 if check.losses is Batching.single else scoring.loss_batch_size,
        unconditional=needs_unconditional(names, scoring.choices),
        plain=check.plain,
        told=told,
    )
    found = choice_scores(names, weighed, scoring.choices)
    by = scoring.choices.by
    each = [
        {"chosen": row.texts[row.chosen(by)], "logprobs": list(row.logprobs)}
        | ({"unconditional": list(row.unconditional)} if row.unconditional else {})
        for row in weighed
    ]
    texts = [row.texts[row.chosen(by)] for row in weighed]
    return Scores(found.values, found.signatures, texts, rows=found.rows, choices=each, details=found.details)


def _losses(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[TokenizedRow],
    held_out: Sequence[TokenizedRow],
    scoring: schema.Scoring,
    check: BatchCheck,
    told: Told,
) -> dict[str, float]:
    mean_loss = partial(
        mean_completion_loss,
        model,
        pad_id=int(tokenizer.pad_token_id),
        batch_size=1 if check.losses is Batching.single else scoring.loss_batch_size,
        plain=check.plain,
        told=told,
    )
    loss = mean_loss(examples)
    if not math.isfinite(loss):
        raise RunFault(
            f"the loss on scoring.split={scoring.split} is not finite ({loss}); lower trainer.learning_rate, or use "
            "model.dtype=float32 if the base model's own loss is not finite"
        )
    values = {"loss": loss, "perplexity": math.exp(min(loss, LARGEST_EXPONENT))}
    return values | ({"forgetting_loss": mean_loss(held_out)} if held_out else {})


@contextmanager
def _as_merged(model: Any, examples: Sequence[TokenizedRow], pad_id: int) -> Iterator[Any]:
    """The model with its adapter in the weights if that changes nothing but rounding, else as it is."""
    if not can_merge(model):
        yield model
        return
    rows = rows_to_check(examples)
    expected = completion_logits(model, rows, pad_id, plain=True)
    with ExitStack() as stack:
        scored = stack.enter_context(merged(model))
        if largest_difference(expected, completion_logits(scored, rows, pad_id, plain=True)) > tolerance(scored):
            stack.close()
            scored = model
        yield scored
