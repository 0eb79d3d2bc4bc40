"""Scores of one prediction against its references, each in 0..1.

The metric modules in ``harness/scoring/metrics`` average them and publish percent. The definitions, with their
sources, are in ``docs/metrics.md``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from harness.scoring.text.normalization import ANSWER, normalize
from harness.scoring.text.tokenization import tokenize_text


def exact_match(prediction: str, references: Sequence[str], steps: str = ANSWER) -> float:
    """1.0 if the normalized prediction equals any normalized reference, else 0.0."""
    normalized = normalize(prediction, steps)
    return float(any(normalized == normalize(reference, steps) for reference in references))


def token_f1(prediction: str, references: Sequence[str], tokenizer: str = "mixed") -> float:
    """Best bag-of-tokens F1 over the references (Rajpurkar et al. 2016, SQuAD, section 6.1)."""
    return max(_f1_of_texts(prediction, reference, tokenizer, bag_overlap) for reference in references)


def rouge_l(prediction: str, references: Sequence[str], tokenizer: str = "mixed") -> float:
    """Best sentence-level ROUGE-L F1 over the references (Lin 2004, section 3.1, equations 2-4, beta 1)."""
    return max(_f1_of_texts(prediction, reference, tokenizer, lcs_length) for reference in references)


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, in tokens.

    Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): one row of the dynamic program is one
    long integer, so two texts of 2,000 tokens take about a millisecond.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full  # a zero bit at column i: the common subsequence grows by one there
    for token in right:
        hits = row & places.get(token, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(left) - row.bit_count()


def bag_overlap(left: Iterable[str], right: Iterable[str]) -> int:
    """How many tokens two texts share, each counted as often as both have it."""
    return (Counter(left) & Counter(right)).total()


def _f1_of_texts(
    prediction: str, reference: str, tokenizer: str, common: Callable[[list[str], list[str]], int]
) -> float:
    left, right = tokenize_text(prediction, tokenizer), tokenize_text(reference, tokenizer)
    if not left and not right:
        # Neither has content, or both are in a script that this tokenizer drops: only equal texts agree.
        return float(normalize(prediction, "nfkc+space") == normalize(reference, "nfkc+space"))
    return 2 * common(left, right) / (len(left) + len(right)) if left and right else 0.0
