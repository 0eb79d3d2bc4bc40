"""Rows divided into train, validation and test: cuts, limits, and duplicates across splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from harness.config.schema import Data
from harness.data.rows import Row, with_references
from harness.errors import DataFault

SPLITS = ("train", "validation", "test")


def _prompt_key(row: Row) -> str:
    """What the model reads, as text; the same for rows that ask the same. Lists of pairs, so that splits stay the same
    for rows without other fields."""
    turns = [[turn.role, turn.content, *([turn.fields] if turn.fields else [])] for turn in row.messages[:-1]]
    return json.dumps([*turns, *([row.tools] if row.tools else [])], ensure_ascii=False, default=str)


def _rank(seed: int, *parts: str) -> bytes:
    """Sort key of a random order that no library version changes."""
    return hashlib.sha256("\0".join([str(seed), *parts]).encode()).digest()


def cut(sources: dict[str, list[Row]], data: Data) -> dict[str, list[Row]]:
    """All three splits; those that are not in ``sources`` are cut from its train, keeping the source's order.

    Rows are ordered by a hash of seed and prompt, so that rows with the same prompt are adjacent; a cut that would
    separate them leaves them in train. A fraction is of the rows that train had before any cut.
    """
    rows = sources["train"]
    keys = [_rank(data.split_seed, "split", _prompt_key(row)) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (keys[index], index))
    fractions = {"test": data.fractions.test, "validation": data.fractions.validation}
    start, cuts = 0, dict(sources)
    for name, fraction in fractions.items():
        if name in sources:
            continue
        wanted = min(start + max(1, round(fraction * len(rows))), len(rows)) if fraction else start
        end = wanted
        while start < end < len(rows) and keys[order[end - 1]] == keys[order[end]]:
            end -= 1
        if end == start:  # One prompt fills the whole cut: cut it as requested, and count the duplicates.
            end = wanted
        cuts[name] = [rows[index] for index in sorted(order[start:end])]
        start = end
    cuts["train"] = [rows[index] for index in sorted(order[start:])]
    if not cuts["train"] and len(rows) < len(SPLITS):
        raise DataFault(
            f"data.path={data.path} has {len(rows)} rows, too few for training, validation and test; add rows, so that"
            " each split has one"
        )
    if not cuts["train"]:
        raise DataFault(
            f"data.fractions: validation={data.fractions.validation} and test={data.fractions.test} leave"
            f" none of {len(rows)} rows for training; lower them"
        )
    return {name: cuts[name] for name in SPLITS}


def one_reference_each(rows: Sequence[Row]) -> list[Row]:
    """For training: a row with several references becomes several rows, one for each."""
    return [each for row in rows for each in row.pairs()]


def grouped(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """For scoring: rows with one prompt become one row with all their references, at the place of the first.

    Returns:
        The rows, and how many of them were merged into an earlier one. Rows with different targets or options stay
        apart.
    """
    groups: dict[tuple[str, str | None, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        groups.setdefault((_prompt_key(row), row.target, row.options), []).append(row)
    merged = []
    for same in groups.values():
        merged.append(with_references(same[0], [text for row in same for text in row.all_references]))
    return merged, len(rows) - len(merged)


def limited(rows: Sequence[Row], limit: int | None, seed: int, split: str) -> tuple[Row, ...]:
    """At most ``limit`` rows in the source's order. A smaller limit draws a subset of what a larger one draws."""
    if limit is None or limit >= len(rows):
        return tuple(rows)
    seen: Counter[int] = Counter()
    names = []
    for row in rows:  # one number can stand for several references, and in several files
        names.append(f"{row.number}.{seen[row.number]}" if seen[row.number] else str(row.number))
        seen[row.number] += 1
    drawn = sorted(range(len(rows)), key=lambda i: _rank(seed, "limit", split, names[i]))[:limit]
    return tuple(rows[index] for index in sorted(drawn))


def count_duplicates(splits: dict[str, tuple[Row, ...]]) -> int:
    """Rows whose prompt is also in an earlier split."""
    earlier: set[str] = set()
    count = 0
    for name in SPLITS:
        prompts = [_prompt_key(row) for row in splits[name]]
        count += sum(prompt in earlier for prompt in prompts)
        earlier.update(prompts)
    return count
