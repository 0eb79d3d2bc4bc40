"""Notes on what some scores come with: standard errors, and the figures of classes."""

from collections.abc import Iterator, Mapping, Sequence

from harness.report.fields import Record
from harness.scoring.catalog import decimals

Numbered = Sequence[tuple[str, Record]]  # rows of a table by their number


def standard_errors(rows: Numbered) -> Iterator[str]:
    """Values with the standard errors that lm-evaluation-harness gives them, each with the baseline's."""
    names = dict.fromkeys(name for _, record in rows for name in _errors(record, "after"))
    for name in names:
        parts: dict[str, list[str]] = {}
        for number, record in rows:
            if name in _errors(record, "after"):
                parts.setdefault(_with_errors(record, name), []).append(number)
        texts = [f"{_rows(numbers)} {text}" for text, numbers in parts.items()]
        yield f"{name} with its standard error: {'; '.join(texts)}"


def classes(rows: Numbered) -> Iterator[str]:
    """F1 of each class after training, with that of the untouched model."""
    for number, record in rows:
        after, before = (_classes(record, when) for when in ("after", "before"))
        if after:
            figures = (f"{name} {each['f1']:.1f}{_change(each, before.get(name))}" for name, each in after.items())
            yield f"choice_f1 by class, row {number}: {', '.join(figures)}"


def _with_errors(record: Record, name: str) -> str:
    text = _figure(record, "after", name)
    before = _figure(record, "before", name) if name in _errors(record, "before") else ""
    return f"{text} (baseline {before})" if before else text


def _figure(record: Record, when: str, name: str) -> str:
    value, error = record["scores"][when].get(name), _errors(record, when)[name]
    digits = decimals(name, abs(value or 0.0))
    return f"{value:.{digits}f} \u00b1 {error:.{digits}f}" if value is not None and error is not None else "not finite"


def _errors(record: Record, when: str) -> Mapping[str, float | None]:
    found = (record["scores"].get("errors") or {}).get(when)
    return found if isinstance(found, Mapping) else {}


def _classes(record: Record, when: str) -> Mapping[str, Mapping[str, float]]:
    found = ((record["scores"].get("details") or {}).get(when) or {}).get("classes")
    return found if isinstance(found, Mapping) else {}


def _change(after: Mapping[str, float], before: Mapping[str, float] | None) -> str:
    return "" if before is None else f" ({after['f1'] - before['f1']:+.1f})"


def _rows(numbers: Sequence[str]) -> str:
    return f"row{'s' if numbers[1:] else ''} {','.join(numbers)}"
