"""The label audit: how many tokens a split trains on, and a hash of them."""

import hashlib
from collections.abc import Sequence

from harness.config.schema import Objective
from harness.data.collate import lesson_collate
from harness.data.tokenize import IGNORED, TokenizedRow
from harness.errors import DataFault


def label_audit(
    rows: Sequence[TokenizedRow], refused_rows: int = 0, objective: Objective = Objective.completion
) -> dict[str, int | str]:
    """What one pass over these training rows trains on; the padding of batches is counted by the training loop.

    Args:
        refused_rows: rows of all splits that were left out; passed through.

    Returns:
        ``supervised_tokens`` and ``prompt_tokens`` count ids; ``rows``, ``cut_rows`` and ``refused_rows`` count rows;
        ``supervised_sha256`` is over the supervised ids, row by row in order. The lesson's labels are counted as its
        collator makes them: ``supervised_padding_tokens`` of them are padding.

    Raises:
        DataFault: a row has no supervised token.
    """
    counts = _lesson_audit(rows) if objective is Objective.lesson else _completion_audit(rows)
    return {
        **counts,
        "rows": len(rows),
        "refused_rows": refused_rows,
        "cut_rows": sum(row.cut for row in rows),
    }


def _completion_audit(rows: Sequence[TokenizedRow]) -> dict[str, int | str]:
    total, count = hashlib.sha256(), 0
    for row in rows:
        supervised = [label for label in row.labels if label != IGNORED]
        if not supervised:
            raise DataFault(f"{row.row.source}, row {row.row.number}: no token of its completion is trained on")
        total.update(" ".join(map(str, supervised)).encode() + b"\n")
        count += len(supervised)
    return {
        "supervised_tokens": count,
        "prompt_tokens": sum(len(row.input_ids) for row in rows) - count,
        "supervised_sha256": total.hexdigest(),
    }


def _lesson_audit(rows: Sequence[TokenizedRow], pad_id: int = -1) -> dict[str, int | str]:
    """Each row's labels but the first, which nothing predicts; padding counts under an id that no text has."""
    total, supervised, padding, prompt = hashlib.sha256(), 0, 0, 0
    for row in rows:
        batch = lesson_collate([row], pad_id)
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
