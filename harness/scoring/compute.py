"""Load the metrics of the catalog and compute them for a list of answers."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.extensions.imports import is_import_path
from harness.scoring import custom
from harness.scoring.catalog import SCORES, TOKENIZE, answer_metrics
from harness.scoring.text.normalization import has_han
from harness.scoring.text.tokenization import tokenize_text


def metric_folder(name: str) -> Path:
    """Folder of a metric's module, as ``evaluate.load(str(metric_folder(name)))`` takes it.

    Raises:
        ValueError: the catalog has no such metric.
    """
    if name not in answer_metrics():
        raise ValueError(_unknown_metric(name))
    return Path(__file__).resolve().parent / "metrics" / name


def load_metric(name: str) -> Any:
    """A new ``evaluate.Metric`` that keeps its rows in memory.

    ``evaluate.load`` would copy the class into its module cache; this imports it in place. So a home directory that is
    full or read-only, an interrupted copy and concurrent runs cannot affect a score, and nothing is left on disk.

    Raises:
        ValueError: the catalog has no such metric.
    """
    metric_folder(name)
    from evaluate.loading import import_main_class

    metric = import_main_class(f"harness.scoring.metrics.{name}.{name}")
    with tempfile.TemporaryDirectory() as scratch:  # evaluate requires a folder, but does not use it in memory
        return metric(cache_dir=scratch, keep_in_memory=True)


def input_faults(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    targets: Sequence[str] | None,
    tokenize: str,
) -> list[str]:
    """Why these inputs cannot be scored, one sentence each; empty if they can."""
    known = answer_metrics()
    faults = [_unknown_metric(name) for name in names if name not in known and not is_import_path(name)]
    if tokenize not in TOKENIZE:
        faults.append(f"tokenize={tokenize!r} is unknown; choose one of {', '.join(TOKENIZE)}")
    if not predictions:
        faults.append("predictions: 0 rows; there is nothing to score")
    if len(references) != len(predictions):
        faults.append(f"references: {len(references)} rows for {len(predictions)} predictions; give one list per row")
    if any(isinstance(row, str) for row in references):
        faults.append("references: a row is a string; give a list of strings per row")
    if targets is None:
        faults += [
            f"{name} needs targets: give one name per row, or leave that metric out"
            for name in names
            if name in known and SCORES[name].needs == "targets"
        ]
    elif len(targets) != len(predictions):
        faults.append(f"targets: {len(targets)} rows for {len(predictions)} predictions; give one name per row")
    tokenizing = any(SCORES[name].tokenizers for name in names if name in known)
    if tokenize == "13a" and tokenizing and _without_english_words(references):
        faults.append("tokenize=13a finds no word in these references, which are Chinese; use zh, char or jieba")
    return faults


def compute_metrics(
    names: Sequence[str],
    predictions: list[str],
    references: list[list[str]],
    targets: list[str] | None,
    tokenize: str,
) -> tuple[dict[str, float], dict[str, str]]:
    """Corpus values and signatures, each by metric name, values in the catalog's unit (percent: 0..100).

    A signature names everything that affects a value: tokenizer and its version, normalization, references per row.

    Args:
        names: metrics of the catalog.
        predictions: one answer per row.
        references: one or more texts per row.
        targets: one name per row, for metrics that need targets; the candidates are all the targets.
        tokenize: a key of ``TOKENIZE``.

    Raises:
        ValueError: lists everything that is wrong with the inputs.
    """
    values, signatures, _ = compute_with_rows(names, predictions, references, targets, tokenize)
    return values, signatures


def compute_with_rows(
    names: Sequence[str],
    predictions: list[str],
    references: list[list[str]],
    targets: list[str] | None,
    tokenize: str,
    columns: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> tuple[dict[str, float], dict[str, str], dict[str, list[float]]]:
    """As ``compute_metrics``, and the value of each row, for metrics that are a mean over rows.

    Args:
        columns: further values per row, for metrics of the user's own, which ``names`` holds as import paths.

    Raises:
        ValueError: lists everything that is wrong with the inputs.
        RunFault: a metric of the user's own fails.
    """
    faults = input_faults(names, predictions, references, targets, tokenize)
    if faults:
        raise ValueError("; ".join(faults))
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    rows: dict[str, list[float]] = {}
    for name in names:
        if is_import_path(name):
            found, own_rows = custom.compute(name, predictions, references, columns)
            values |= found
            rows |= own_rows
            signatures |= dict.fromkeys(found, custom.signature(name))
            continue
        score = SCORES[name]
        settings = {"tokenize": score.tokenizers[tokenize]} if score.tokenizers else {}
        expected = targets if score.needs == "targets" else references
        result = load_metric(name).compute(predictions=predictions, references=expected, **settings)
        values[name], signatures[name] = float(result[name]), result["signature"]
        if "rows" in result:
            rows[name] = result["rows"]
    return values, signatures, rows


def _unknown_metric(name: str) -> str:
    return f"metric {name!r} is unknown; choose one of {', '.join(answer_metrics())}"


def _without_english_words(references: Sequence[Sequence[str]]) -> bool:
    texts = [text for row in references for text in row]
    return any(map(has_han, texts)) and not any(tokenize_text(text, "rouge") for text in texts)
