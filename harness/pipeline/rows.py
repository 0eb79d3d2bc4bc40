"""A plan's data as tokens: rows of every split, the held-out text, and what the record says about them."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.config.schema import Objective
from harness.data import dataset
from harness.data.sources import locate_data
from harness.data.tokenize import held_out_rows, tokenize_splits
from harness.errors import DataFault, raise_together
from harness.models.base import Base
from harness.models.ends import end_ids, stops_for
from harness.pipeline.values import PreparedRows
from harness.plan.spec import Plan
from harness.scoring.catalog import reads_answers

if TYPE_CHECKING:
    from harness.data.tokenize import TokenizedRow


def prepare_rows(plan: Plan, base: Base) -> PreparedRows:
    """Read and tokenize the plan's data with the base model's tokenizer.

    Raises:
        DataFault: some rows cannot be used, or a file is missing.
    """
    started = time.perf_counter()
    read = dataset.read_splits(plan.data)
    tokenized = tokenize_splits(read, plan.data, base.tokenizer)
    notes = []
    if read.duplicates_across_splits:
        notes.append(f"{read.duplicates_across_splits} prompts are in more than one split")
    refused = len(read.bad) + len(tokenized.bad)  # while reading, and by template and tokenizer
    if refused:
        notes.append(f"{refused} unusable rows were skipped (data.on_bad_row=skip)")
    notes += read.notes
    if tokenized.apart:
        notes.append(
            f"{tokenized.apart} earlier turns are rows of their own (data.train_on=all): the template shows them"
            " otherwise once other turns follow"
        )
    if tokenized.cut:
        notes.append(f"{tokenized.cut} completions were cut to data.max_tokens={plan.data.max_tokens}")
    if tokenized.spanned:
        notes.append(
            f"in {tokenized.spanned} rows the tokenizer would write one token across the border of prompt and answer; "
            "their answers are tokenized on their own"
        )
    scored, template = tokenized.splits, plan.scoring.template
    if template not in (None, plan.data.template):
        scored = tokenize_splits(read, replace(plan.data, template=template), base.tokenizer).splits
        notes.append(
            f"scoring.template={template}: a mismatch on purpose; the scored prompts are not those of training "
            f"(data.template={plan.data.template})"
        )
    everything = [row for rows in tokenized.splits.values() for row in rows]
    stops = stops_for(
        end_ids(base.model, base.tokenizer),
        tokenized.end_id,
        [row.answer_ids for row in everything],
        base.tokenizer,
    )
    return PreparedRows(
        splits=tokenized.splits,
        scored=scored,
        held_out=_held_out(plan, base),
        rows={name: len(rows) for name, rows in tokenized.splits.items()} | {"bad": refused},
        refused=refused,
        stops=stops.ids,
        end_id=tokenized.end_id,
        notes=(*notes, *stops.notes),
        seconds=time.perf_counter() - started,
    )


def trained_as(rows: PreparedRows, objective: Objective) -> PreparedRows:
    """The rows with the labels of the objective, where those are not the completion's alone."""
    if objective is not Objective.full_sequence:
        return rows
    return replace(rows, splits={**rows.splits, "train": [row.trained_whole() for row in rows.splits["train"]]})


def require_needed_splits(rows: PreparedRows, plan: Plan) -> None:
    """Raise DataFault if a split that this plan trains, validates or scores on is empty."""
    needed = {"train", plan.scoring.split} | ({"validation"} if plan.trainer.evaluations else set())
    raise_together(list(choice_faults(rows.scored[plan.scoring.split], plan)), DataFault)
    empty = sorted(name for name in needed if not rows.splits[name])
    if empty:
        raise DataFault(
            f"data.path={plan.data.path} leaves no row for the split {' and '.join(empty)}; add rows, or "
            "change data.splits, data.fractions or data.limits"
        )


def choice_faults(rows: "Sequence[TokenizedRow]", plan: Plan) -> Iterator[str]:
    """What the rows lack for the metrics of options."""
    wanted = [name for name in plan.scoring.metrics if not reads_answers(name)]
    without = sum(not row.options for row in rows)
    if wanted and without:
        yield (
            f"scoring.metrics contains {wanted[0]}, but {without} of {len(rows)} rows of the {plan.scoring.split} "
            "split have no options; set data.options=[...] or data.columns.options"
        )
    elif "choice_f1" in wanted and len({frozenset(row.row.options) for row in rows}) > 1:
        yield (
            "scoring.metrics contains choice_f1, but the rows have different options, so that there are no classes; "
            "leave it out, and take choice_acc"
        )


def cut_warning(rows: PreparedRows, plan: Plan) -> str | None:
    """What to know before training if answers as long as their references do not fit; None if all fit."""
    limit = plan.scoring.generation.max_new_tokens
    lengths = [len(row.answer_ids) for row in rows.scored[plan.scoring.split]]
    longer = [length for length in lengths if length > limit]
    if not longer or not any(map(reads_answers, plan.scoring.metrics)):
        return None
    return (
        f"{len(longer)} of {len(lengths)} references are longer than scoring.generation.max_new_tokens={limit} (the "
        f"longest has {max(longer)} tokens): their answers will be cut; raise it to {max(longer) + 1}"
    )


def _held_out(plan: Plan, base: Base) -> "list[TokenizedRow]":
    if plan.scoring.forgetting is None:
        return []
    path = locate_data(plan.scoring.forgetting, "scoring.forgetting")
    if path is None:
        raise DataFault(
            f"scoring.forgetting={plan.scoring.forgetting}: no such file; correct the path or set it to null"
        )
    return held_out_rows(path, plan.scoring.forgetting_limit, base.tokenizer, plan.data.max_tokens)
