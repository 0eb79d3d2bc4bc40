"""Rewrite the tables of docs/planning.md from what planning.py, published_peaks.py and capacity.py have found.

python scripts/docs/planning_table.py [--check]
"""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sections import row, update

from harness.estimate import capacity

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "planning.jsonl"
PUBLISHED = ROOT / "docs" / "results" / "planning-published.jsonl"
BAND = 0.15  # of the peak of tensors, either way
CAPACITY = ROOT / "docs" / "results" / "capacity.jsonl"
STORED = 0.9  # share of the values' bits from which on a rank counts as large enough
FLOPS_BAND = 0.03
PUBLISHED_BAND = 0.15


def main() -> int:
    """Rewrite, or with ``--check`` report what is stale."""
    measured, published, stored = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (RESULTS, PUBLISHED, CAPACITY)
    )
    sections = [
        ("docs/planning.md", "measured", lines(measured)),
        ("docs/planning.md", "verdict", [verdict(measured)]),
        ("docs/planning.md", "published", published_lines(published)),
        ("docs/planning.md", "constant", constant_lines(stored)),
        ("docs/planning.md", "knees", knee_lines(stored)),
    ]
    return update(ROOT, sections, "scripts/docs/planning_table.py", __doc__)


def lines(measured: list[Mapping[str, Any]]) -> Iterator[str]:
    """One line a setting."""
    yield row(
        *("model", "overrides", "rows x tokens", "tensors MiB", "forecast", "off", "process MiB"),
        *("operations", "off", "CPU s", ""),
    )
    yield row("---", "---", *["--:"] * 8, "---")
    for each in measured:
        yield row(
            f"`{each['model']}`",
            f"`{' '.join(each['overrides'])}`",
            f"{each['rows']} x {each['tokens']}",
            f"{each['allocated'] / 2**20:,.0f}",
            f"{each['forecast_peak'] / 2**20:,.0f}",
            f"{off(each, 'peak', 'allocated'):+.0%}",
            f"{each['peak'] / 2**20:,.0f}",
            f"{each['flops']:.2e}",
            f"{off(each, 'flops'):+.1%}",
            f"{each['seconds']:.2f} ({each['forecast_seconds']:.2f})",
            "" if not misses(each) else f"outside: {', '.join(misses(each))}",
        )


def published_lines(published: list[Mapping[str, Any]]) -> Iterator[str]:
    """One line a published run."""
    yield row("experiment", "overrides", "trained", "peak GB", "forecast", "off")
    yield row("---", "---", "--:", "--:", "--:", "--:")
    for each in published:
        yield row(
            each["experiment"],
            f"`{' '.join(each['overrides'])}`",
            f"{each['trained']:,}",
            f"{each['peak'] / 1e9:.2f}",
            f"{each['forecast_peak'] / 1e9:.2f}",
            f"{off(each, 'peak'):+.1%}",
        )


def off(each: Mapping[str, Any], key: str, measured: str | None = None) -> float:
    """How far the forecast is from what was measured (by default under the same key), as a share of it."""
    return float(each[f"forecast_{key}"] / each[measured or key] - 1)


def misses(each: Mapping[str, Any]) -> list[str]:
    """The bands that this setting misses."""
    found = ["peak"] if abs(off(each, "peak", "allocated")) > BAND else []
    return found + (["operations"] if abs(off(each, "flops")) > FLOPS_BAND else [])


def verdict(measured: list[Mapping[str, Any]]) -> str:
    """How many settings are within their bands."""
    peaks = sum("peak" not in misses(each) for each in measured)
    flops = sum("operations" not in misses(each) for each in measured)
    return (
        f"{len(measured)} settings: the peak of tensors is within its band ({BAND:.0%}) in {peaks}, the operations "
        f"({FLOPS_BAND:.0%}) in {flops}."
    )


def constants(stored: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Bits of the values that a trained number stored, of the sets that calibrate, at rank 1, by passes and set."""
    found: dict[int, dict[str, float]] = {}
    for each in stored:
        if each["use"] == "calibrates" and each["rank"] == 1:
            found.setdefault(each["passes"], {})[each["set"]] = of_values(each) / each["trained"]
    return dict(sorted(found.items()))


def of_values(each: Mapping[str, Any]) -> float:
    """How many random bits of the values were stored; what the base lacks besides them is taken as stored first."""
    return float(each["stored"] - (each["bits"] - each["random_bits"]))


def constant_lines(stored: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each number of passes, and what the harness takes for it."""
    found = constants(stored)
    names = sorted({name for values in found.values() for name in values})
    yield row("passes", *(f"`{name}`" for name in names), "mean", "taken")
    yield row("--:", *("--:" for _ in names), "--:", "--:")
    for passes, values in found.items():
        mean = statistics.fmean(values.values())
        taken = capacity.MEASURED[passes]
        yield row(str(passes), *(f"{values[name]:.2f}" for name in names), f"{mean:.2f}", f"{taken:.2f}")


def knee_lines(stored: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each set and number of passes: what each rank stored, the predicted rank and the measured one."""
    yield row("set", "", "bits", "read by the base", "passes", "stored by rank", "predicted", "measured", "")
    yield row("---", "---", "--:", "--:", "--:", "---", "--:", "--:", "---")
    for (name, passes), group in _grouped(stored).items():
        first = group[0]
        predicted, measured = knees(group)
        shares = ", ".join(f"{each['rank']}: {of_values(each) / each['random_bits']:.0%}" for each in group)
        yield row(
            *(f"`{name}`", first["use"], f"{first['random_bits']:,.0f}", f"{first['bits']:,.0f}", str(passes), shares),
            *(str(predicted), "-" if measured is None else str(measured), _judged(predicted, measured)),
        )


def knees(group: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """The rank at which the adapter should hold all bits, and the first that stored nearly all; None: no rank did."""
    first = group[0]
    of_one = first["trained"] / first["rank"] * capacity.bits_per_number(first["passes"])
    stored = [each["rank"] for each in group if of_values(each) >= STORED * each["random_bits"]]
    return capacity.smallest_rank(first["bits"] / of_one), min(stored, default=None)


def _judged(predicted: int | None, measured: int | None) -> str:
    if predicted is None or measured is None:
        return "no rank stored enough"
    if predicted == measured:
        return "equal"
    return "within 2x" if max(predicted, measured) <= 2 * min(predicted, measured) else "**off**"


def _grouped(stored: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """Trainings by set and passes, in their order, ranks ascending."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for each in sorted(stored, key=lambda line: (line["use"], line["set"], line["passes"], line["rank"])):
        groups.setdefault((each["set"], each["passes"]), []).append(each)
    return groups


if __name__ == "__main__":
    sys.exit(main())
