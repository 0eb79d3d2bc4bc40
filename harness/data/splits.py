"""Rows into train, validation and test: cuts, limits, duplicates across splits, and the digest of the result."""

import hashlib
import json
from collections.abc import Sequence

from harness.config.schema import Data
from harness.data.rows import Row
from harness.errors import DataFault

SPLITS = ("train", "validation", "test")


def _prompt_key(row: Row) -> str:
    return json.dumps(row.messages[:-1], ensure_ascii=False)


def _rank(seed: int, *parts: str) -> bytes:
    """Place of something in a random order that no library version changes."""
    return hashlib.sha256("\0".join([str(seed), *parts]).encode()).digest()


def cut(found: dict[str, list[Row]], data: Data) -> dict[str, list[Row]]:
    """All three splits; those without a source are cut from train, in the source's order.

    Rows are ordered by a hash of seed and prompt, so that rows of one prompt stand together: a cut that would
    part them leaves them in train. The share is a share of the rows that train had before any cut.
    """
    rows = found["train"]
    keys = [_rank(data.split_seed, "split", _prompt_key(row)) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (keys[index], index))
    shares = {"test": data.fractions.test, "validation": data.fractions.validation}
    start, cuts = 0, dict(found)
    for name, share in shares.items():
        if name in found:
            continue
        wanted = min(start + max(1, round(share * len(rows))), len(rows)) if share else start
        end = wanted
        while start < end < len(rows) and keys[order[end - 1]] == keys[order[end]]:
            end -= 1
        if end == start:  # One prompt fills the whole cut: take it as asked, and count the duplicates.
            end = wanted
        cuts[name] = [rows[index] for index in sorted(order[start:end])]
        start = end
    cuts["train"] = [rows[index] for index in sorted(order[start:])]
    if not cuts["train"]:
        raise DataFault(
            f"data.fractions: validation={data.fractions.validation} and test={data.fractions.test} leave"
            f" none of {len(rows)} rows for training; lower them"
        )
    return {name: cuts[name] for name in SPLITS}


def limited(rows: Sequence[Row], limit: int | None, seed: int, split: str) -> tuple[Row, ...]:
    """A sample in the source's order. A smaller limit draws a subset of what a larger one draws."""
    if limit is None or limit >= len(rows):
        return tuple(rows)
    drawn = sorted(range(len(rows)), key=lambda i: _rank(seed, "limit", split, str(rows[i].number)))[:limit]
    return tuple(rows[index] for index in sorted(drawn))


def rows_digest(splits: dict[str, tuple[Row, ...]]) -> str:
    total = hashlib.sha256()
    for name in SPLITS:
        for row in splits[name]:
            fields = (name, row.instruction, row.input, row.output, row.messages, row.target)
            total.update(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def duplicates(splits: dict[str, tuple[Row, ...]]) -> int:
    earlier: set[str] = set()
    count = 0
    for name in SPLITS:
        prompts = [_prompt_key(row) for row in splits[name]]
        count += sum(prompt in earlier for prompt in prompts)
        earlier.update(prompts)
    return count
