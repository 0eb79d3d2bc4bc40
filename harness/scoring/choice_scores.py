"""Scores of weighed options: accuracy, F1 of the classes, calibration. Pure functions of numbers: no torch.

Options are compared by their log-probability, as it is, per token, character or byte, or relative to the one that they
have without the prompt (pointwise mutual information). The first of equal ones is chosen, as in
lm-evaluation-harness.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema import ChoiceBy, Choices

# What decides each accuracy.
ACCURACIES = {
    "choice_acc": ChoiceBy.raw,
    "choice_acc_tokens": ChoiceBy.tokens,
    "choice_acc_chars": ChoiceBy.characters,
    "choice_acc_bytes": ChoiceBy.bytes,
    "choice_acc_pmi": ChoiceBy.unconditional,
}


@dataclass(frozen=True)
class Weighed:
    """The options of one row with their log-probabilities (nats), and which of them are right."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]  # of each option
    logprobs: tuple[float, ...]
    unconditional: tuple[float, ...] | None  # without the prompt; None: not measured
    right: frozenset[int]

    def weights(self, by: ChoiceBy) -> list[float]:
        """What the options are compared by; the largest is chosen."""
        if by is ChoiceBy.unconditional:
            if self.unconditional is None:
                raise ValueError("the options were not weighed without their prompt")
            return [with_ - without for with_, without in zip(self.logprobs, self.unconditional, strict=True)]
        sizes = {
            ChoiceBy.raw: [1] * len(self.texts),
            ChoiceBy.tokens: list(self.tokens),
            ChoiceBy.characters: [len(text) for text in self.texts],
            ChoiceBy.bytes: [len(text.encode()) for text in self.texts],
        }[by]
        return [logprob / size for logprob, size in zip(self.logprobs, sizes, strict=True)]

    def chosen(self, by: ChoiceBy) -> int:
        """The number of the chosen option, from 0."""
        weights = self.weights(by)
        return weights.index(max(weights))

    def confidence(self, by: ChoiceBy) -> float:
        """The share of the chosen option in the exponentials of all weights."""
        weights = self.weights(by)
        return 1 / math.fsum(math.exp(weight - max(weights)) for weight in weights)


@dataclass(frozen=True)
class ChoiceScores:
    """Values in percent, signatures, the value of each row where the score is a mean, and what they are made of."""

    values: dict[str, float]
    signatures: dict[str, str]
    rows: dict[str, list[float]]
    details: dict[str, Any]


def needs_unconditional(metrics: Sequence[str], choices: Choices) -> bool:
    """Whether options must be weighed without their prompt, too."""
    return choices.by is ChoiceBy.unconditional or "choice_acc_pmi" in metrics


def choice_scores(metrics: Sequence[str], rows: Sequence[Weighed], choices: Choices) -> ChoiceScores:
    """The metrics of options over all rows, at least one.

    Raises:
        ValueError: ``choice_f1`` is asked for, and the rows have different options.
    """
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    of_rows: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    counts = {len(row.texts) for row in rows}
    options = str(counts.pop()) if len(counts) == 1 else "var"
    for name in metrics:
        if name in ACCURACIES:
            hits = [100.0 * (row.chosen(ACCURACIES[name]) in row.right) for row in rows]
            values[name], of_rows[name] = math.fsum(hits) / len(hits), hits
            signatures[name] = f"by:{ACCURACIES[name].value}|options:{options}"
        elif name == "choice_f1":
            details["classes"] = class_figures(rows, choices.by)
            figures = details["classes"].values()
            values[name] = math.fsum(each["f1"] for each in figures) / len(figures)
            signatures[name] = f"by:{choices.by.value}|classes:{len(figures)}|average:macro"
        elif name == "choice_ece":
            details["calibration"] = bins = calibration(rows, choices)
            gaps = [each["rows"] * abs(each["accuracy"] - each["confidence"]) for each in bins]
            values[name] = math.fsum(gaps) / len(rows)
            signatures[name] = f"by:{choices.by.value}|bins:{choices.bins}|options:{options}"
    return ChoiceScores(values, signatures, of_rows, details)


def class_figures(rows: Sequence[Weighed], by: ChoiceBy) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 (percent) and rows of each option that all rows share.

    The class of a row is its right option; of several, the chosen one if it is right, else the first. A class that
    is neither right nor chosen in any row has F1 0.
    """
    classes = rows[0].texts
    if any(set(row.texts) != set(classes) for row in rows):
        raise ValueError("choice_f1 needs the same options in all rows")
    pairs = []
    for row in rows:
        chosen = row.chosen(by)
        right = chosen if chosen in row.right else min(row.right)
        pairs.append((row.texts[chosen], row.texts[right]))
    figures = {}
    for name in classes:
        hits = sum(chosen == right == name for chosen, right in pairs)
        said, there = sum(chosen == name for chosen, _ in pairs), sum(right == name for _, right in pairs)
        figures[name] = {
            "precision": 100.0 * hits / said if said else 0.0,
            "recall": 100.0 * hits / there if there else 0.0,
            "f1": 200.0 * hits / (said + there) if said + there else 0.0,
            "rows": there,
        }
    return figures


def calibration(rows: Sequence[Weighed], choices: Choices) -> list[dict[str, float]]:
    """Bins of confidence that hold a row, with their number of rows, mean confidence and accuracy (percent).

    Expected calibration error as Guo et al. 2017, section 2: bins of equal width over 0 to 1.
    """
    binned: dict[int, list[tuple[float, bool]]] = {}
    for row in rows:
        confidence = row.confidence(choices.by)
        place = min(math.ceil(confidence * choices.bins) - 1, choices.bins - 1)  # (low, high]
        binned.setdefault(max(place, 0), []).append((confidence, row.chosen(choices.by) in row.right))
    return [
        {
            "above": place / choices.bins,
            "rows": len(members),
            "confidence": 100.0 * math.fsum(confidence for confidence, _ in members) / len(members),
            "accuracy": 100.0 * sum(hit for _, hit in members) / len(members),
        }
        for place, members in sorted(binned.items())
    ]
