#!/usr/bin/env python
"""Simulate comparisons with known variances, and write what the statistics make of them into docs/statistics.md.

python scripts/docs/simulation_table.py           # rewrites the section between the markers; half a minute
python scripts/docs/simulation_table.py --check   # writes nothing, exits with 1 if the section is stale
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from sections import row, update

from harness.report.statistics import variance
from harness.report.statistics.comparisons import compare_with
from harness.report.statistics.model import ALPHA, Components, RunScores
from harness.report.statistics.power import power

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/statistics.md"

SEEDS = (3, 5, 10)
ROWS = 216  # as the embedded test split
COMPARISONS = 4000  # of each kind, at each number of seeds
CHUNK = 250  # comparisons at once
FAMILIES, METHODS = 600, 5  # whole reports, and the methods of each: 2,400 comparisons with a reference


@dataclass(frozen=True)
class World:
    """Standard deviations of what makes the scores of two methods differ, in points."""

    name: str
    by_seed: tuple[float, float]  # of each method: what a seed does to it alone
    by_row: float  # of each method: how a row suits it
    rest: float  # of each single answer
    right_or_wrong: bool = False  # scores are 0 or 100, where the sum of all effects, in points, exceeds a threshold
    common_seed: float = 2.0  # what a seed does to both methods
    common_row: float = 20.0  # how hard a row is for both

    @property
    def effect(self) -> float:
        """The true difference at which power is measured: what a test on 5 seeds sees about four times in five."""
        return 3.5 * float(np.sqrt(sum(each**2 for each in self.by_seed) / 5 + 2 * self.by_row**2 / ROWS))

    @property
    def components(self) -> Components:
        """Of the difference."""
        return Components(sum(each**2 for each in self.by_seed), 2 * self.by_row**2, 2 * self.rest**2)


WORLDS = (
    World("rows alone", (0.0, 0.0), 15.0, 20.0),
    World("mostly rows", (0.6, 0.6), 15.0, 20.0),
    World("rows and seeds alike", (1.2, 1.2), 15.0, 15.0),
    World("mostly seeds", (4.0, 4.0), 10.0, 15.0),
    World("seeds alone", (4.0, 4.0), 0.0, 10.0),
    World("one method noisier", (1.0, 4.0), 10.0, 15.0),
    World("right or wrong", (3.0, 3.0), 15.0, 15.0, right_or_wrong=True),
)


@dataclass(frozen=True)
class Measured:
    """Shares of the simulated comparisons."""

    covered: float  # intervals that hold the true difference
    false_alarms: float  # equal methods that were told apart
    power: float  # differing methods that were told apart
    predicted: float | None  # the power that ``statistics.power`` computes from the true variances


def draw(world: World, n: int, paired: bool, effect: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods, each [comparison, seed, row]."""
    hard = rng.normal(0, world.common_row, (CHUNK, 1, ROWS))
    common = rng.normal(0, world.common_seed, (CHUNK, n, 1))
    both = []
    for method, by_seed in enumerate(world.by_seed):
        if method and not paired:
            common = rng.normal(0, world.common_seed, (CHUNK, n, 1))
        table = rng.normal(0, world.rest, (CHUNK, n, ROWS))
        table += hard + common + rng.normal(0, by_seed, (CHUNK, n, 1)) + rng.normal(0, world.by_row, (CHUNK, 1, ROWS))
        table += 20 + method * effect
        both.append(100.0 * (table > 0) if world.right_or_wrong else table)
    return both[0], both[1]


def tested(world: World, n: int, paired: bool, effect: float, rng: np.random.Generator) -> variance.Estimate:
    """The estimates of all comparisons."""
    parts = []
    for _ in range(COMPARISONS // CHUNK):
        reference, other = draw(world, n, paired, effect, rng)
        if paired:
            parts.append(variance.of_seeds_and_rows(other - reference))
        else:
            parts.append(variance.of_two_groups_and_rows(reference, other))
    return variance.Estimate(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))


@cache
def measure(world: World, n: int, paired: bool) -> Measured:
    """Coverage, false alarms and power at ``n`` seeds."""
    # A seed of its own for each, so that a change of one world leaves the others alone.
    rng = np.random.default_rng([WORLDS.index(world), n, paired])
    equal, unequal = (tested(world, n, paired, effect, rng) for effect in (0.0, world.effect))
    truth = unequal.difference.mean() if world.right_or_wrong else world.effect
    limit = variance.critical(unequal, ALPHA) * unequal.se
    known = None if world.right_or_wrong or not paired else power(world.components, world.effect, n, ROWS, ALPHA, True)
    return Measured(
        covered=float((np.abs(unequal.difference - truth) <= limit).mean()),
        false_alarms=float((np.abs(equal.difference) > variance.critical(equal, ALPHA) * equal.se).mean()),
        power=float((np.abs(unequal.difference) > limit).mean()),
        predicted=None if known is None else float(known),
    )


def bootstrap_coverage(n: int, comparisons: int = 2000, resamples: int = 1000) -> float:
    """Share of percentile bootstrap intervals over ``n`` seeds that hold the true mean (Efron 1979), for comparison."""
    rng = np.random.default_rng(n)
    values = rng.normal(0, 1, (comparisons, n))
    picks = rng.integers(0, n, (comparisons, resamples, n))
    means = np.take_along_axis(values[:, None, :], picks, axis=2).mean(axis=2)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    return float(((low <= 0) & (high >= 0)).mean())


@dataclass(frozen=True)
class Families:
    """Shares of simulated reports, each of ``METHODS`` methods."""

    orders: float  # in which equal methods are put into an order, against a named reference
    lost: float  # in which the truly best method is said not to be the best


@cache
def families(n: int) -> Families:
    """What whole reports claim: Holm's correction, noise floors and the choice of the best included."""
    rng = np.random.default_rng(n)
    orders, lost = 0, 0
    for _ in range(FAMILIES):
        hard, common = rng.normal(0, 20, ROWS), rng.normal(0, 2, (n, 1))
        runs = []
        for method in range(METHODS):
            scores = 50 + hard + common + rng.normal(0, 1.5, (n, 1)) + rng.normal(0, 15, ROWS)
            scores = scores + rng.normal(0, 15, (n, ROWS))
            runs += [
                RunScores(f"m{method}", f"m{method}", seed, "score", values.mean(), rows=values, row_set="same")
                for seed, values in enumerate(scores)
            ]
        verdicts = {each.verdict for each in compare_with("m0", runs)}
        orders += bool(verdicts & {"better", "worse"})
        means = {
            name: np.mean([run.aggregate for run in runs if run.configuration == name])
            for name in {run.configuration for run in runs}
        }
        best = max(means, key=means.__getitem__)
        chosen = {each.other: each.verdict for each in compare_with(best, runs, chosen_by_score=True)}
        lost += chosen.get("m0") == "worse"  # all are equal, so that any of them counts as the best
    return Families(orders / FAMILIES, lost / FAMILIES)


def reports() -> Iterator[str]:
    """Lines of the table of whole reports."""
    yield row("seeds", "reports with a false order %", "reports that lose the best %")
    yield row(*["--:"] * 3)
    for n in SEEDS:
        yield row(str(n), f"{100 * families(n).orders:.1f}", f"{100 * families(n).lost:.1f}")


def table() -> Iterator[str]:
    """Lines of the table."""
    yield row("variance", "seeds", "n", "covers %", "false alarms %", "effect", "power %", "predicted %")
    yield row("---", "---", *["--:"] * 6)
    for world in WORLDS:
        for paired in (True, False):
            for n in SEEDS:
                found = measure(world, n, paired)
                percents = [f"{100 * value:.1f}" for value in (found.covered, found.false_alarms)]
                predicted = "" if found.predicted is None else f"{100 * found.predicted:.0f}"
                kind = "paired" if paired else "not paired"
                yield row(
                    world.name, kind, str(n), *percents, f"{world.effect:.1f}", f"{100 * found.power:.0f}", predicted
                )


def bootstraps() -> Iterator[str]:
    """Lines of the table of bootstrap intervals."""
    yield row("seeds", "covers %")
    yield row("--:", "--:")
    for n in SEEDS:
        yield row(str(n), f"{100 * bootstrap_coverage(n):.0f}")


def main() -> int:
    """Rewrite the sections, or report which are stale."""
    sections = ((PAGE, "simulation", table()), (PAGE, "bootstrap", bootstraps()), (PAGE, "reports", reports()))
    return update(ROOT, sections, "scripts/docs/simulation_table.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
