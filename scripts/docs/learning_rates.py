"""Write the tables of docs/learning_rates.md: the rule of each method, and what was measured with it.

    python scripts/docs/learning_rates.py           # rewrites the sections between the markers
    python scripts/docs/learning_rates.py --check   # writes nothing, exits with 1 if a section is stale

Measurements are the slim records in docs/results/, which scripts/bench/learning_rates.py writes.
"""

import gzip
import itertools
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sections import row, update

from harness.methods.rates import RateContext, RateRule
from harness.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
MODELS = {"smollm2_135m": (576, "llama"), "gemma3_270m": (640, "gemma3_text")}  # width and family
MODEL_NAMES = {"smollm2_135m": "SmolLM2", "gemma3_270m": "Gemma 3"}
ACCEPTED = 0.2  # regret
PLACES = {
    "embedded (160)": RateContext(160, "qwen2", 16, None),
    "SmolLM2-135M (576), 30 steps of 4": RateContext(576, "llama", 4, 30),
    "Gemma 3 270M (640), 30 steps of 4": RateContext(640, "gemma3_text", 4, 30),
    "Llama 1B (2048)": RateContext(2048, "llama", 16, None),
    "Qwen 8B (4096)": RateContext(4096, "qwen3", 16, None),
}


Losses = dict[float, float]  # mean loss after training, by learning rate
Record = dict[str, Any]
GRID_SEED = 0


def main() -> int:
    """Rewrite the sections, or report which are stale."""
    page = "docs/learning_rates.md"
    grids = [Grid.read(file) for file in sorted(RESULTS.glob("*.jsonl.gz")) if not file.name.startswith("survey-")]
    sections = (
        (page, "rules", rules()),
        (page, "measured", measured(grids)),
        (page, "regret", regrets(grids)),
        (page, "fresh", fresh(grids)),
        (page, "survey", survey()),
    )
    return update(ROOT, sections, "scripts/docs/learning_rates.py", __doc__)


@dataclass(frozen=True)
class Grid:
    """The rates that were tried on one model and data set, and what they led to."""

    model: str
    data: str
    place: RateContext
    untouched: float  # loss
    losses: dict[str, Losses]  # by method, with the grid's seed
    fresh: dict[str, list[Record]]  # by method, runs of the best rate and the rule's with other seeds

    @classmethod
    def read(cls, file: Path) -> "Grid":
        """One file of slim records."""
        records = finished(file)
        found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        fresh: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record["seed"] != GRID_SEED:
                fresh[record["method"]].append(record)
                continue
            found[record["method"]][record["learning_rate"]].append(record["scores"]["after"]["loss"])
        losses = {
            method: {rate: statistics.fmean(each) for rate, each in sorted(found[method].items())}
            for method in METHODS
            if method in found
        }
        some = next(record for record in records if record["seed"] == GRID_SEED)
        width, family = MODELS[some["model"]]
        place = RateContext(width, family, some["rows_per_step"], some["optimizer_steps"])
        return cls(some["model"], some["data"], place, some["scores"]["before"]["loss"], losses, fresh)

    @property
    def name(self) -> str:
        return f"{MODEL_NAMES[self.model]}, {self.data}, {self.place.rows} rows"

    @property
    def is_gemma(self) -> bool:
        return self.place.family.startswith("gemma")

    def is_wide(self, method: str) -> bool:
        """Whether the best rate lies inside the grid, not at an end of it."""
        losses = self.losses.get(method, {})
        return bool(losses) and min(losses, key=lambda rate: losses[rate]) not in (min(losses), max(losses))

    def optimum(self, method: str) -> float:
        """The lowest point of the parabola, over the logarithm of the rate, through the best rate and its neighbors."""
        losses = self.losses[method]
        rates = sorted(losses)
        place = rates.index(min(losses, key=lambda rate: losses[rate]))
        near = rates[place - 1 : place + 2]
        (low, middle, high), (a, b, c) = map(math.log, near), (losses[rate] for rate in near)
        down, up = (b - a) / (middle - low), (c - b) / (high - middle)
        return math.exp((low + middle) / 2 - down * (high - low) / 2 / (up - down))

    def regret(self, method: str, rate: float) -> float:
        """What this rate loses against the best one, as a share of what the best gains over the untouched model.

        Between the measured rates the loss is read off a straight line over the logarithm of the rate, which a valley
        lies below: the regret is rather too high than too low. Outside of them it is that of the last measured rate.
        """
        losses = self.losses[method]
        best = min(losses.values())
        return (_interpolated(losses, rate) - best) / (self.untouched - best)


def finished(file: Path) -> list[Record]:
    """The finished records of a file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [record for record in map(json.loads, lines) if record["status"] == "finished"]


def _interpolated(losses: Losses, rate: float) -> float:
    rates = sorted(losses)
    if rate <= rates[0]:
        return losses[rates[0]]
    for low, high in itertools.pairwise(rates):
        if rate <= high:
            share = math.log(rate / low) / math.log(high / low)
            return losses[low] + share * (losses[high] - losses[low])
    return losses[rates[-1]]


def fitted(grids: Sequence[Grid], method: str, by_family: bool = True) -> RateRule:
    """The rule through the geometric mean of the best rates of these grids.

    With ``by_family`` the point comes from the grids of SmolLM2 and Gemma's factor from those of Gemma, where there are
    any; else the point comes from all, and the factor is 1.
    """
    rule = replace(_of(method), gemma=1.0)
    gemma = [grid for grid in grids if grid.is_gemma]
    if not by_family:
        return replace(rule, small=rule.small * _distance(grids, method, rule))
    others = [grid for grid in grids if not grid.is_gemma]
    if others:
        rule = replace(rule, small=rule.small * _distance(others, method, rule))
    return replace(rule, gemma=_distance(gemma, method, rule) if gemma else _of(method).gemma)


def _distance(grids: Sequence[Grid], method: str, rule: RateRule) -> float:
    """How many times the rule's rate the best rates are, as a geometric mean."""
    ratios = [grid.optimum(method) / rule.rate(grid.place, {}) for grid in grids]
    return statistics.geometric_mean(ratios)


def rules() -> Iterator[str]:
    """One line for each method: its rate at five places, and the source of its second point."""
    yield row("method", *PLACES, "source of the point at width 576")
    yield row("---", *["--:" for _ in PLACES], "---")
    for name, method in METHODS.items():
        if method.rate is not None:
            rates = [f"{method.rate.rate(place, {}):.2g}" for place in PLACES.values()]
            yield row(f"`{name}`", *rates, method.rate.source)


def measured(grids: Sequence[Grid]) -> Iterator[str]:
    """One line for each method, model and data set: the losses by learning rate."""
    if not grids:
        yield "Nothing has been measured on a real model yet."
        return
    yield row("model, data", "method", "untouched", "loss by learning rate, the best in bold", "rule", "regret")
    yield row("---", "---", "--:", "---", "--:", "--:")
    for grid in grids:
        for method, losses in grid.losses.items():
            best = min(losses, key=lambda rate: losses[rate])
            shown = (f"{rate:g}: {loss:.3f}" for rate, loss in losses.items())
            bold = ", ".join(f"**{each}**" if rate == best else each for rate, each in zip(losses, shown, strict=True))
            rule = _rule(method, grid)
            regret = f"{grid.regret(method, rule):.0%}" if grid.is_wide(method) else "grid too narrow"
            yield row(grid.name, f"`{method}`", f"{grid.untouched:.3f}", bold, f"{rule:g}", regret)


def regrets(grids: Sequence[Grid]) -> Iterator[str]:
    """One line for each method: its point, the one that fits best, and its regrets when each pair is left out."""
    if not grids:
        yield "Nothing has been measured on a real model yet."
        return
    yield row("method", "point at 576", "for Gemma", "best fit", *(grid.name for grid in grids), "worst", "one point")
    yield row("---", *["--:" for _ in range(len(grids) + 5)])
    everything: dict[str, list[float]] = {}
    for method in METHODS:
        wide = [grid for grid in grids if grid.is_wide(method)]
        if len(wide) < 2:
            continue
        own = {grid.name: _left_out(method, grid, wide, True) for grid in wide}
        common = [_left_out(method, grid, wide, False) for grid in wide]
        everything[method] = list(own.values())
        fit, rule = fitted(wide, method), _of(method)
        cells = (f"{own[grid.name]:.0%}" if grid.name in own else "-" for grid in grids)
        points = (f"{rule.small:g}", f"x {rule.gemma:g}", f"{fit.small:.2g}, x {fit.gemma:.2g}")
        yield row(f"`{method}`", *points, *cells, f"{max(own.values()):.0%}", f"{max(common):.0%}")
    flat = [regret for each in everything.values() for regret in each]
    over = [f"`{method}` {max(each):.0%}" for method, each in everything.items() if max(each) > ACCEPTED]
    yield ""
    yield f"Median {statistics.median(flat):.1%} of {len(flat)}. Above {ACCEPTED:.0%}: {', '.join(over) or 'none'}."


def _left_out(method: str, grid: Grid, grids: Sequence[Grid], by_family: bool) -> float:
    """The regret on one grid of the rule that fits those of other models or data sets."""
    others = [each for each in grids if (each.model, each.data) != (grid.model, grid.data)]
    return grid.regret(method, fitted(others, method, by_family).rate(grid.place, {}))


def fresh(grids: Sequence[Grid]) -> Iterator[str]:
    """The best rate of a grid and the rule's once more, with a seed that had no part in the choice."""
    found = list(_fresh_rows(grids))
    if not found:
        yield "None has been run again yet."
        return
    yield row("model, data", "method", "seeds", "best of the grid", "loss", "rule", "loss", "regret", "in the grid")
    yield row("---", "---", *["--:" for _ in range(7)])
    yield from (line for _, _, line in found)
    data = dict.fromkeys(grid.data for grid, _, _ in found)
    medians = (
        f"{statistics.median(each for grid, each, _ in found if grid.data == name):.0%} on {name}" for name in data
    )
    over = [f"{line.split('|')[2].strip()} ({grid.name}) {each:.0%}" for grid, each, line in found if each > ACCEPTED]
    yield ""
    yield (
        f"Median {statistics.median(each for _, each, _ in found):.1%} of {len(found)} ({', '.join(medians)}). "
        f"Above {ACCEPTED:.0%}: {', '.join(over) or 'none'}."
    )


def _fresh_rows(grids: Sequence[Grid]) -> Iterator[tuple[Grid, float, str]]:
    """The grid, the regret of the rule's rate with fresh seeds, and the line of the table."""
    for grid in grids:
        for method, records in grid.fresh.items():
            losses = grid.losses[method]
            best, rule = min(losses, key=lambda rate: losses[rate]), _rule(method, grid)
            means = [_mean_loss(records, rate) for rate in (best, rule)]
            if best == rule or None in means:
                continue
            untouched = statistics.fmean(record["scores"]["before"]["loss"] for record in records)
            at_best, at_rule = (mean for mean in means if mean is not None)
            regret = (at_rule - at_best) / (untouched - at_best)
            seeds = ", ".join(map(str, sorted({record["seed"] for record in records})))
            figures = (f"{best:g}", f"{at_best:.3f}", f"{rule:g}", f"{at_rule:.3f}", f"{regret:+.0%}")
            line = row(grid.name, f"`{method}`", seeds, *figures, f"{grid.regret(method, rule):.0%}")
            yield grid, regret, line


def _mean_loss(records: Sequence[Record], rate: float) -> float | None:
    losses = [record["scores"]["after"]["loss"] for record in records if record["learning_rate"] == rate]
    return statistics.fmean(losses) if losses else None


def survey() -> Iterator[str]:
    """One line for each method of the survey: the loss at its defaults, over seeds, on each data set."""
    files = sorted(RESULTS.glob("survey-*.jsonl.gz"))
    if not files:
        yield "Nothing has been measured on a real model yet."
        return
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    heads = []
    for file in files:
        records = finished(file)
        some = records[0]
        steps = f"{some['optimizer_steps']} steps of {some['rows_per_step']}"
        untouched = some["scores"]["before"]["loss"]
        heads.append(f"{MODEL_NAMES[some['model']]}, {some['data']}, {steps}; untouched {untouched:.3f}")
        width, family = MODELS[some["model"]]
        place = RateContext(width, family, some["rows_per_step"], some["optimizer_steps"])
        for record in records:
            if record["learning_rate"] != _of(record["method"]).rate(place, record["settings"]):
                continue  # of an earlier rule
            found[record["method"]].setdefault(heads[-1], []).append(record["scores"]["after"]["loss"] - untouched)
    yield row("method", *heads)
    yield row("---", *["--:" for _ in heads])
    for method in [name for name in METHODS if name in found]:
        yield row(f"`{method}`", *(_spread(found[method].get(head, [])) for head in heads))


def _spread(changes: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    if len(changes) < 2:
        return f"{changes[0]:+.3f}" if changes else ""
    return f"{statistics.fmean(changes):+.3f} ± {statistics.stdev(changes):.3f} (n={len(changes)})"


def _of(method: str) -> RateRule:
    rule = METHODS[method].rate
    assert rule is not None
    return rule


def _rule(method: str, grid: Grid) -> float:
    return _of(method).rate(grid.place, {})


if __name__ == "__main__":
    sys.exit(main())
