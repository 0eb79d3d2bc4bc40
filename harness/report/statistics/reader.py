"""Scores of runs, as the statistics read them, from their records and predictions.

``predictions.jsonl`` has the scores of every row (docs/record.md). Runs of earlier versions have the texts alone: the
scores of their rows are computed again, and used if their mean is the score on record. Nothing is written.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.report import alike
from harness.report.fields import method_name
from harness.report.statistics.model import RunScores
from harness.scoring.catalog import SCORES
from harness.scoring.text import mathematics, overlap

SAME_MEAN = 1e-6  # in the score's unit


@dataclass(frozen=True)
class FinishedRun:
    """A record with the folder that it was read from, and what ``harness.report.alike`` says about it."""

    record: Mapping[str, Any]
    folder: Path  # of the run; its predictions are read from there
    configuration: str  # key
    group: str = ""  # key of model, data and protocol
    label: str = ""  # of its configuration: "lora r=8"


@dataclass(frozen=True)
class ScoresRead:
    """What was read, and what was missing."""

    scores: list[RunScores]
    notes: list[str] = field(default_factory=list)

    def of(self, metric: str) -> list[RunScores]:
        """The runs' scores of one metric."""
        return [each for each in self.scores if each.metric == metric]


def read_scores(runs: Iterable[FinishedRun], metrics: Sequence[str] | None = None) -> ScoresRead:
    """Every score after training of every finished run, with its values per row where there are any.

    A file of predictions that is missing, damaged or of other rows costs the values per row alone; a note names the
    runs.

    Args:
        metrics: only these scores; None: all that a record has.
    """
    found: list[RunScores] = []
    lost: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if run.record["status"] != "finished":
            continue
        fingerprint = run.record["fingerprint"]
        after = _scores_after(run.record)
        wanted = [name for name in after if metrics is None or name in metrics]
        of_rows = [name for name in wanted if has_rows(name)]
        predictions = _predictions(run, lost) if of_rows else None
        for name in wanted:
            values = None
            if predictions is not None and name in of_rows:
                values = _row_values(name, predictions, run.record)
                if values is None:
                    lost[f"{name}: the scores of rows were not kept"].append(fingerprint)
                elif abs(float(values.mean()) - after[name]) > SAME_MEAN:
                    lost[f"{name}: the scores of rows do not add up to the score on record"].append(fingerprint)
                    values = None
            found.append(
                RunScores(
                    configuration=run.configuration,
                    method=method_name(run.record),
                    seed=run.record["plan"]["seed"],
                    metric=name,
                    aggregate=after[name],
                    group=run.group,
                    label=run.label,
                    numerics=alike.numerics_key(run.record),
                    fingerprint=fingerprint,
                    rows=values,
                    row_set=predictions.row_set if predictions is not None and values is not None else "",
                )
            )
    return ScoresRead(found, [_note(what, fingerprints) for what, fingerprints in lost.items()])


def has_rows(metric: str) -> bool:
    """Whether the score is a mean over rows, so that each row has a value."""
    return metric in SCORES and SCORES[metric].aggregation == "mean over rows"


@dataclass(frozen=True)
class _Predicted:
    """The lines of one file of predictions."""

    lines: list[dict[str, Any]]
    row_set: str


def _predictions(run: FinishedRun, lost: dict[str, list[str]]) -> _Predicted | None:
    name, fingerprint = run.record.get("predictions"), run.record["fingerprint"]
    if not name:
        lost["no answers were kept"].append(fingerprint)
        return None
    try:
        text = (run.folder / name).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        rows = [[line["prompt"], _references(line)] for line in lines]
        if not lines:
            raise ValueError("empty")
    except FileNotFoundError:
        lost[f"{name} is missing"].append(fingerprint)
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        lost[f"{name} cannot be read ({type(error).__name__})"].append(fingerprint)
        return None
    return _Predicted(lines, hashlib.sha256(json.dumps(rows).encode("utf-8", "backslashreplace")).hexdigest()[:16])


def _row_values(metric: str, predicted: _Predicted, record: Mapping[str, Any]) -> "np.ndarray | None":
    """The values of the rows after training, as they were kept, else computed again; None if neither works."""
    try:
        kept = [line["scores"]["after"][metric] for line in predicted.lines]
    except (KeyError, TypeError):
        score_row = _row_score(metric, record["plan"].get("scoring", {}).get("tokenize"))
        if score_row is None:
            return None
        kept = [100 * score_row(line["after"], tuple(_references(line))) for line in predicted.lines]
    try:
        values = np.array(kept, dtype=float)
    except (TypeError, ValueError):
        return None
    return values if np.isfinite(values).all() else None


def _row_score(metric: str, tokenize: str | None) -> Callable[[str, tuple[str, ...]], float] | None:
    """The score (0..1) of an answer and its references; None if these two do not suffice.

    ``names_target`` needs the targets of all rows, which predictions lack.
    """
    tokenizer = SCORES[metric].tokenizers.get(tokenize or "")
    if metric == "exact_match":
        return _exact_match
    if metric == "final_number":
        return _final_number
    if metric == "math_answer":
        return _math_answer
    if tokenizer is None:
        return None
    if metric == "rouge_l":
        return lambda answer, references: _rouge_l(answer, references, tokenizer)
    if metric == "token_f1":
        return lambda answer, references: _token_f1(answer, references, tokenizer)
    return None


@cache
def _exact_match(answer: str, references: tuple[str, ...]) -> float:
    return overlap.exact_match(answer, references)


@cache
def _final_number(answer: str, references: tuple[str, ...]) -> float:
    expected = {mathematics.final_number(text) for text in references} - {None}
    return float(mathematics.final_number(answer) in expected)


@cache
def _math_answer(answer: str, references: tuple[str, ...]) -> float:
    return float(any(mathematics.same_answer(answer, text) for text in references))


@cache
def _rouge_l(answer: str, references: tuple[str, ...], tokenizer: str) -> float:
    return overlap.rouge_l(answer, references, tokenizer)


@cache
def _token_f1(answer: str, references: tuple[str, ...], tokenizer: str) -> float:
    return overlap.token_f1(answer, references, tokenizer)


def _references(line: Mapping[str, Any]) -> list[str]:
    return line.get("references") or [line["reference"]]


def _scores_after(record: Mapping[str, Any]) -> dict[str, float]:
    """Finite scores after training, with the validation loss of the weights that were kept."""
    from harness.record.readings import validation_loss

    scores = dict(record["scores"]["after"]) | {"validation_loss": validation_loss(record)}
    return {name: float(value) for name, value in scores.items() if value is not None and math.isfinite(value)}


def _note(what: str, fingerprints: Sequence[str]) -> str:
    shown = ", ".join(sorted(set(fingerprints))[:5]) + (" ..." if len(set(fingerprints)) > 5 else "")
    count = len(set(fingerprints))
    return f"{what} ({count} run{'s' if count > 1 else ''}: {shown}): comparisons count their seeds alone"
