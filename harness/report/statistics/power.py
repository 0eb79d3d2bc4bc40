"""How many seeds and rows a comparison needs to see a stated effect.

With n seeds and R rows a difference has the variance ``seed / n + row / R + residual / (n R)`` (the components of
``harness.report.statistics.variance``). The power of the test is that of a t test with this standard error: with
noncentrality ``effect / se`` and the critical value c that the test would use,

    power = P(T > c) + P(T < -c),  T ~ noncentral t

(Cohen 1988, *Statistical Power Analysis for the Behavioral Sciences*; for rows held fixed this is statsmodels'
``TTestPower`` and ``TTestIndPower``). The components are estimates themselves, from few seeds: read the numbers as a
plan, not a promise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from harness.report.statistics.model import POWER, Components, Needed
from harness.report.statistics.variance import Estimate, critical

MOST_SEEDS = 1000  # more are "no number of seeds"
MOST_ROWS = 10_000_000
LARGE_DF = 1e5  # from here on the noncentral t is a normal distribution

Array = np.ndarray


def power(components: Components, effect: float, seeds: Any, rows: Any, alpha: float, paired: bool) -> Array:
    """Probability that the test at ``alpha`` finds ``effect``.

    Args:
        seeds: of each of the two configurations; a number or an array.
        rows: a number or an array; infinite if rows are held fixed or as many as wanted.
        paired: by seed; else both have as many seeds, with equal variances.
    """
    n, count = np.broadcast_arrays(np.asarray(seeds, dtype=float), np.asarray(rows, dtype=float))
    expected = Estimate(
        difference=np.full(n.shape, float(effect)),
        seed_part=components.seed / n + components.residual / (n * count),
        seed_df=(n - 1) * (1 if paired else 2),
        row_part=components.row / count,
        row_df=count - 1,
        seed=np.full(n.shape, components.seed),
        row=np.full(n.shape, components.row),
        residual=np.full(n.shape, components.residual),
    )
    limit, se, df = critical(expected, alpha), expected.se, expected.df
    certain = se == 0  # nothing varies
    shift = abs(effect) / np.where(certain, 1.0, se)
    small = np.minimum(df, LARGE_DF)
    by_t = 1 - special.nctdtr(small, shift, limit) + special.nctdtr(small, shift, -limit)
    by_normal = special.ndtr(shift - limit) + special.ndtr(-shift - limit)  # where the t has no number
    chance = np.where((df < LARGE_DF) & np.isfinite(by_t), by_t, by_normal)
    return np.where(certain, float(effect != 0), chance)


def needed(
    components: Components,
    effect: float,
    seeds: int,
    rows: int | None,
    alpha: float,
    paired: bool,
    target: float = POWER,
) -> Needed:
    """What it takes to see ``effect`` with the power ``target``: seeds on these rows, rows at these seeds.

    Args:
        seeds: present ones, of the configuration that has fewer.
        rows: present ones; None: the metric has no values per row, so other numbers of rows cannot be judged.
    """
    present: float = rows if rows is not None else np.inf

    def chance(n: Any, count: Any) -> Array:
        return power(components, effect, n, count, alpha, paired)

    def enough_seeds(count: float) -> int | None:
        return _fewest(lambda n: chance(n, count) >= target, MOST_SEEDS)

    return Needed(
        effect=effect,
        alpha=alpha,
        power=target,
        power_now=float(chance(seeds, present)),
        visible=visible_effect(components, seeds, rows, alpha, paired, target),
        seeds=enough_seeds(present),
        rows=None if rows is None else _fewest(lambda count: chance(seeds, count) >= target, MOST_ROWS),
        rows_known=rows is not None,
        fewest_seeds=None if rows is None else enough_seeds(MOST_ROWS),
    )


def visible_effect(
    components: Components, seeds: int, rows: int | None, alpha: float, paired: bool, target: float = POWER
) -> float:
    """The smallest effect that would be seen with the power ``target``; 0 if nothing varies."""
    count: float = rows if rows is not None else np.inf
    variance = components.seed / seeds + components.row / count + components.residual / (seeds * count)
    if variance == 0:
        return 0.0
    scale = float(np.sqrt(variance))

    def missing(size: float) -> float:
        return float(power(components, size * scale, seeds, count, alpha, paired)) - target

    from scipy.optimize import brentq

    high = 4.0
    while missing(high) < 0:
        high *= 2
    return float(brentq(missing, 0.0, high, xtol=1e-3)) * scale


def _fewest(enough: Callable[[Any], Array], most: int) -> int | None:
    """The smallest number from 2 to ``most`` that suffices, by a geometric grid and bisection; None: no number does.

    More rows narrow the interval but leave its degrees of freedom to the few seeds, so the power need not grow with
    rows: the grid finds the first number that suffices even if many more do not.
    """
    grid = np.unique(np.geomspace(2, most, 48).astype(int))
    fits = enough(grid)
    if not fits.any():
        return None
    place = int(np.argmax(fits))
    low, high = (int(grid[place - 1]) if place else 1), int(grid[place])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bool(enough(middle)) else (middle, high)
    return high
