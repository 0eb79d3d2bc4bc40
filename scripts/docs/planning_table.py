"""Rewrite the tables of docs/planning.md from what scripts/bench/planning.py and published_peaks.py found.

python scripts/docs/planning_table.py [--check]
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sections import row, update

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "planning.jsonl"
PUBLISHED = ROOT / "docs" / "results" / "planning-published.jsonl"
BANDS = {"tiny": 0.25, "smollm2_135m": 0.15, "gemma3_270m": 0.15}  # of the peak, either way
FLOPS_BAND = 0.03
PUBLISHED_BAND = 0.15


def main() -> int:
    """Rewrite, or with ``--check`` report what is stale."""
    measured, published = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in (RESULTS, PUBLISHED)
    )
    sections = [
        ("docs/planning.md", "measured", lines(measured)),
        ("docs/planning.md", "verdict", [verdict(measured)]),
        ("docs/planning.md", "published", published_lines(published)),
    ]
    return update(ROOT, sections, "scripts/docs/planning_table.py", __doc__)


def lines(measured: list[Mapping[str, Any]]) -> Iterator[str]:
    """One line a setting."""
    yield row("model", "overrides", "rows x tokens", "peak MiB", "forecast", "off", "operations", "off", "CPU s", "")
    yield row("---", "---", "--:", "--:", "--:", "--:", "--:", "--:", "--:", "---")
    for each in measured:
        yield row(
            f"`{each['model']}`",
            f"`{' '.join(each['overrides'])}`",
            f"{each['rows']} x {each['tokens']}",
            f"{each['peak'] / 2**20:,.0f}",
            f"{each['forecast_peak'] / 2**20:,.0f}",
            f"{off(each, 'peak'):+.0%}",
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


def off(each: Mapping[str, Any], key: str) -> float:
    """How far the forecast is from what was measured, as a share of it."""
    return float(each[f"forecast_{key}"] / each[key] - 1)


def misses(each: Mapping[str, Any]) -> list[str]:
    """The bands that this setting misses."""
    found = ["peak"] if abs(off(each, "peak")) > BANDS[each["model"]] else []
    return found + (["operations"] if abs(off(each, "flops")) > FLOPS_BAND else [])


def verdict(measured: list[Mapping[str, Any]]) -> str:
    """How many settings are within their bands."""
    peaks = sum("peak" not in misses(each) for each in measured)
    flops = sum("operations" not in misses(each) for each in measured)
    return (
        f"{len(measured)} settings: the peak is within its band in {peaks} (15 %, for `tiny` 25 %), the operations in "
        f"{flops} (3 %)."
    )


if __name__ == "__main__":
    sys.exit(main())
