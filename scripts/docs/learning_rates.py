"""Write the tables of docs/learning_rates.md: the rule of each method, and what was measured with it.

    python scripts/docs/learning_rates.py           # rewrites the sections between the markers
    python scripts/docs/learning_rates.py --check   # writes nothing, exits with 1 if a section is stale

Measurements are the slim records in docs/results/, which scripts/bench/learning_rates.py writes.
"""

import gzip
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sections import row, update

from harness.methods.rates import RateContext
from harness.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "embedded (160)": RateContext(160, "qwen2", 16, None),
    "SmolLM2-135M (576), 30 steps of 4": RateContext(576, "llama", 4, 30),
    "Gemma 3 270M (640), 30 steps of 4": RateContext(640, "gemma3_text", 4, 30),
    "Llama 1B (2048)": RateContext(2048, "llama", 16, None),
    "Qwen 8B (4096)": RateContext(4096, "qwen3", 16, None),
}


def main() -> int:
    """Rewrite the sections, or report which are stale."""
    page = "docs/learning_rates.md"
    sections = ((page, "rules", rules()), (page, "measured", measured()))
    return update(ROOT, sections, "scripts/docs/learning_rates.py", __doc__)


def rules() -> Iterator[str]:
    """One line for each method: its rate at five places, and the source of its second point."""
    yield row("method", *PLACES, "source of the point at width 576")
    yield row("---", *["--:" for _ in PLACES], "---")
    for name, method in METHODS.items():
        if method.rate is not None:
            rates = [f"{method.rate.rate(place, {}):.2g}" for place in PLACES.values()]
            yield row(f"`{name}`", *rates, method.rate.source)


def measured() -> Iterator[str]:
    """One line for each method, model and data set: the losses by learning rate."""
    files = sorted((ROOT / "docs" / "results").glob("*.jsonl.gz"))
    if not files:
        yield "Nothing has been measured on a real model yet."
        return
    yield row(
        "model", "data", "method", "untouched", "loss by learning rate, best in bold", "rule", "regret of the rule"
    )
    yield row("---", "---", "---", "--:", "---", "--:", "--:")
    for file in files:
        yield from _of_file(file)


def _of_file(file: Path) -> Iterator[str]:
    groups: dict[str, dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["status"] == "finished":
                groups[record["method"]][record["learning_rate"]].append(record)
    for method in [name for name in METHODS if name in groups]:
        by_rate = groups[method]
        some = next(iter(by_rate.values()))[0]
        losses = {rate: sum(map(_after, each)) / len(each) for rate, each in sorted(by_rate.items())}
        best = min(losses, key=lambda rate: losses[rate])
        shown = ", ".join(
            f"{'**' * (rate == best)}{rate:g}: {loss:.3f}{'**' * (rate == best)}" for rate, loss in losses.items()
        )
        untouched = some["scores"]["before"]["loss"]
        place = next(value for key, value in PLACES.items() if key.startswith(_NAMES[some["model"]]))
        rule = METHODS[method].rate.rate(place, {})  # type: ignore[union-attr]
        nearest = min(losses, key=lambda rate: abs(math.log(rate / rule)))
        regret = (losses[nearest] - losses[best]) / (untouched - losses[best])
        yield row(some["model"], some["data"], f"`{method}`", f"{untouched:.3f}", shown, f"{rule:g}", f"{regret:.0%}")


_NAMES = {"smollm2_135m": "SmolLM2", "gemma3_270m": "Gemma"}


def _after(record: dict[str, Any]) -> float:
    return float(record["scores"]["after"]["loss"])


if __name__ == "__main__":
    sys.exit(main())
