"""The table of metrics and scores."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.scoring.text import has_han, tokenize_text

DESCRIPTIONS: dict[str, str] = {
    "exact_match": "predictions equal to a reference after normalisation",
    "names_target": "predictions that name the row's target before any other candidate",
    "token_f1": "bag-of-tokens F1, as SQuAD",
    "rouge_l": "longest-common-subsequence F1, as ROUGE-L",
    "chrf": "character n-gram F2, by sacrebleu",
    "bleu": "corpus BLEU-4, by sacrebleu",
}


# What one `tokenize` setting means to each metric that tokenises. `13a` is sacrebleu's name for the tokeniser
# that published English BLEU uses; beside it stand the tokenisers of published English ROUGE-L and SQuAD F1.
TOKENIZE: dict[str, dict[str, str]] = {
    "zh": {"bleu": "zh", "rouge_l": "mixed", "token_f1": "mixed"},
    "13a": {"bleu": "13a", "rouge_l": "rouge", "token_f1": "squad"},
    "char": {"bleu": "char", "rouge_l": "char", "token_f1": "char"},
    "jieba": {"bleu": "jieba", "rouge_l": "jieba", "token_f1": "jieba"},
}


def metric_folder(name: str) -> Path:
    """Folder of a metric module, as ``evaluate.load(str(path(name)))`` takes it."""
    if name not in DESCRIPTIONS:
        raise ValueError(f"metric {name!r} is unknown; choose from {', '.join(DESCRIPTIONS)}")
    return Path(__file__).resolve().parent / "metrics" / name


def load_metric(name: str) -> Any:
    """A fresh ``evaluate.Metric``, its rows kept in memory.

    The class that ``evaluate.load`` would copy into its module cache, imported in place. So a home that is
    full or read-only, a copy cut short, and runs beside this one cannot touch a score, and nothing is left
    on disk.
    """
    metric_folder(name)
    from evaluate.loading import import_main_class

    metric = import_main_class(f"harness.scoring.metrics.{name}.{name}")
    with tempfile.TemporaryDirectory() as scratch:  # evaluate insists on a folder, and in memory never uses it
        return metric(cache_dir=scratch, keep_in_memory=True)


def input_faults(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    targets: Sequence[str] | None,
    tokenize: str,
) -> list[str]:
    """What keeps these inputs from being scored, one sentence each; empty if nothing does."""
    found = [
        f"metric {name!r} is unknown; choose from {', '.join(DESCRIPTIONS)}"
        for name in names
        if name not in DESCRIPTIONS
    ]
    if tokenize not in TOKENIZE:
        found.append(f"tokenize={tokenize!r} is unknown; choose from {', '.join(TOKENIZE)}")
    if not predictions:
        found.append("predictions: 0 rows; there is nothing to score")
    if len(references) != len(predictions):
        found.append(f"references: {len(references)} rows for {len(predictions)} predictions; give one list per row")
    if any(isinstance(row, str) for row in references):
        found.append("references: a row is a string; give a list of strings per row")
    if "names_target" in names and targets is None:
        found.append("names_target needs targets: give one name per row, or leave that metric out")
    if targets is not None and len(targets) != len(predictions):
        found.append(f"targets: {len(targets)} rows for {len(predictions)} predictions; give one name per row")
    if tokenize == "13a" and {*names} & {*TOKENIZE["13a"]} and _unreadable_in_english(references):
        found.append("tokenize=13a finds no word in these references, they are Chinese; use tokenize=zh, char or jieba")
    return found


def _unreadable_in_english(references: Sequence[Sequence[str]]) -> bool:
    written = [text for row in references for text in row]
    return any(map(has_han, written)) and not any(tokenize_text(text, "rouge") for text in written)


def compute_metrics(
    names: Sequence[str],
    predictions: list[str],
    references: list[list[str]],
    targets: list[str] | None,
    tokenize: str,
) -> tuple[dict[str, float], dict[str, str]]:
    """Corpus values in 0..100 and signatures, each keyed by metric name.

    ``references`` holds one or more texts per row; ``targets`` one name per row, needed by names_target
    alone, whose candidates are all the targets. ``tokenize`` is a key of ``TOKENIZE``. A signature names all
    that moves a value: tokeniser and its version, normalisation, references per row. ``ValueError`` lists
    every fault.
    """
    wrong = input_faults(names, predictions, references, targets, tokenize)
    if wrong:
        raise ValueError("; ".join(wrong))
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    for name in names:
        settings = {"tokenize": TOKENIZE[tokenize][name]} if name in TOKENIZE[tokenize] else {}
        good = targets if name == "names_target" else references
        result = load_metric(name).compute(predictions=predictions, references=good, **settings)
        values[name], signatures[name] = float(result[name]), result["signature"]
    return values, signatures


METRICS = ("exact_match", "names_target", "token_f1", "rouge_l", "chrf", "bleu")


TOKENIZERS = ("zh", "char", "jieba", "13a")


# Known scores, in the order of their columns. All are percent (0..100) but for those in LOWER_IS_BETTER.
SCORES = (
    *("rouge_l", "names_target", "exact_match", "token_f1", "chrf", "bleu"),
    *("loss", "perplexity", "forgetting_loss"),
)


LOWER_IS_BETTER = frozenset({"loss", "perplexity", "forgetting_loss"})


def digits(name: str, size: float) -> int:
    """Decimals of a score of that size."""
    if name not in LOWER_IS_BETTER:
        return 1
    return 3 if size < 100 else 1 if size < 10_000 else 0
