"""The label audit: how many tokens a split trains on, and a hash of them."""

import hashlib
from collections.abc import Sequence

from harness.config.schema import Objective
from harness.data.collate import lesson_collate
from harness.data.tokenize import TokenizedRow
from harness.errors import DataFault


def label_audit(
    examples: Sequence[TokenizedRow], refused_rows: int = 0, objective: Objective = Objective.completion
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


def _completion_audit(examples: Sequence[TokenizedRow]) -> dict[str, int | str]:
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


def _lesson_audit(examples: Sequence[TokenizedRow], pad_id: int = -1) -> dict[str, int | str]:
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
