"""Variance of a difference over seeds and rows, and the t interval and p value that follow from it.

All functions take arrays with any number of leading axes, so that a thousand comparisons cost little more than one.

**Model.** The difference of two configurations on seed s and row r is

    d_sr = difference + seed_s + row_r + residual_sr

with independent effects of mean 0: seeds and rows are crossed, because each run answers the same rows. The two-way
analysis of variance without replication estimates it (Searle, Casella and McCulloch 1992, *Variance Components*; for
balanced data this is REML whenever no estimate is negative):

    Var(mean d) = Var_s(mean_r d) / n  +  Var_r(mean_s d) / R  -  MS_residual / (n R)

The first term is called the part of the seeds, the other two together the part of the rows. Psycholinguistics knows
this as the quasi-F of subjects and items (Clark 1973, "The language-as-fixed-effect fallacy", Journal of Verbal
Learning and Verbal Behavior 12:335).

**Critical value.** With parts v_k of f_k degrees of freedom and weights w_k = v_k / sum v, there are two classical
answers:

- Welch-Satterthwaite: t with 1 / sum(w_k^2 / f_k) degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2:110;
  Welch 1947, Biometrika 34:28). At 3 seeds it covers as little as 92 % where 95 is claimed.
- Cochran-Cox: sum(w_k t(f_k)) (Cochran and Cox 1957, *Experimental Designs*). At 3 seeds it covers up to 97.3 %.

The mean of the two is used here. It is exact where one part alone counts (there both agree), and covers 93.9 to 96.6 %
in between; ``tests/report/statistics/test_simulation.py`` measures that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray

SMALLEST_P = 1e-12  # smaller p values are reported as this one
STEPS = 40  # of the bisection of log p: 11 digits
SAME = 1e-9  # relative to the values: a variance below this, squared, is rounding


@dataclass(frozen=True)
class Estimate:
    """Differences with the two parts of their variance; every field has the shape of the leading axes."""

    difference: Array
    seed_part: Array  # variance of the difference that other seeds would show
    seed_df: Array
    row_part: Array  # what other rows add; 0 if rows are held fixed
    row_df: Array  # infinite if rows are held fixed
    seed: Array  # variance components: for one seed, one row, and one answer; never negative
    row: Array
    residual: Array

    @property
    def se(self) -> Array:
        """Standard error of the difference."""
        return np.sqrt(self.seed_part + self.row_part)

    @property
    def df(self) -> Array:
        """Satterthwaite's degrees of freedom."""
        return satterthwaite(self.seed_part, self.seed_df, self.row_part, self.row_df)


def of_seeds(values: Array) -> Estimate:
    """Means over seeds of one configuration, or of paired differences; rows held fixed: Student's t interval.

    ``mean ± t(n - 1) * sd / sqrt(n)`` (Student 1908, Biometrika 6:1).

    Args:
        values: [..., seed], at least two seeds.
    """
    values = np.asarray(values, dtype=float)
    n = values.shape[-1]
    spread = values.var(axis=-1, ddof=1)
    return _fixed_rows(values.mean(axis=-1), spread / n, np.full(spread.shape, n - 1.0), spread)


def of_two_groups(reference: Array, other: Array) -> Estimate:
    """Difference of means of seeds that are not paired; rows held fixed: Welch's t interval.

    ``Var = s1^2 / n1 + s2^2 / n2``, degrees of freedom by Satterthwaite (Welch 1947, Biometrika 34:28).

    Args:
        reference, other: [..., seed], at least two seeds each.
    """
    reference, other = np.asarray(reference, dtype=float), np.asarray(other, dtype=float)
    spreads = reference.var(axis=-1, ddof=1), other.var(axis=-1, ddof=1)
    n_reference, n_other = reference.shape[-1], other.shape[-1]
    parts = spreads[0] / n_reference, spreads[1] / n_other
    df = satterthwaite(parts[0], n_reference - 1.0, parts[1], n_other - 1.0)
    return _fixed_rows(other.mean(axis=-1) - reference.mean(axis=-1), parts[0] + parts[1], df, spreads[0] + spreads[1])


def of_seeds_and_rows(values: Array) -> Estimate:
    """Means over seeds and rows of one configuration, or of paired differences; see the module.

    Args:
        values: [..., seed, row], at least two of each.
    """
    values = np.asarray(values, dtype=float)
    n, rows = values.shape[-2:]
    by_seed, by_row = values.mean(axis=-1), values.mean(axis=-2)
    residual = _residual(values)
    seeds, of_rows = by_seed.var(axis=-1, ddof=1), by_row.var(axis=-1, ddof=1)
    return Estimate(
        difference=by_seed.mean(axis=-1),
        seed_part=seeds / n,
        seed_df=np.full(seeds.shape, n - 1.0),
        row_part=np.maximum(of_rows / rows - residual / (n * rows), 0.0),
        row_df=np.full(seeds.shape, rows - 1.0),
        seed=np.maximum(seeds - residual / rows, 0.0),
        row=np.maximum(of_rows - residual / n, 0.0),
        residual=residual,
    )


def of_two_groups_and_rows(reference: Array, other: Array) -> Estimate:
    """Difference of two configurations whose seeds are not paired, but whose rows are; see the module.

    Seeds are nested in their configuration, so that each has its own variance and Welch's degrees of freedom.

    Args:
        reference, other: [..., seed, row], at least two seeds each, and the same rows.
    """
    reference, other = np.asarray(reference, dtype=float), np.asarray(other, dtype=float)
    n_reference, n_other, rows = reference.shape[-2], other.shape[-2], other.shape[-1]
    seeds = [values.mean(axis=-1).var(axis=-1, ddof=1) for values in (reference, other)]
    residuals = [_residual(values) for values in (reference, other)]
    parts = seeds[0] / n_reference, seeds[1] / n_other
    of_rows = (other.mean(axis=-2) - reference.mean(axis=-2)).var(axis=-1, ddof=1)
    per_row = residuals[0] / n_reference + residuals[1] / n_other  # what averages over seeds leave of the residuals
    return Estimate(
        difference=other.mean(axis=(-2, -1)) - reference.mean(axis=(-2, -1)),
        seed_part=parts[0] + parts[1],
        seed_df=satterthwaite(parts[0], n_reference - 1.0, parts[1], n_other - 1.0),
        row_part=np.maximum((of_rows - per_row) / rows, 0.0),
        row_df=np.full(of_rows.shape, rows - 1.0),
        seed=np.maximum(seeds[0] + seeds[1] - (residuals[0] + residuals[1]) / rows, 0.0),
        row=np.maximum(of_rows - per_row, 0.0),
        residual=residuals[0] + residuals[1],
    )


def satterthwaite(first: Array, first_df: Any, second: Array, second_df: Any) -> Array:
    """Degrees of freedom of the sum of two variances: ``(a + b)^2 / (a^2 / f_a + b^2 / f_b)``.

    Satterthwaite 1946, Biometrics Bulletin 2:110. If both are 0, the smaller of the two.
    """
    total = np.asarray(first + second)
    below = np.asarray(first**2 / first_df + second**2 / second_df)
    smaller = np.broadcast_to(np.minimum(first_df, second_df), total.shape)
    return np.where(below > 0, total**2 / np.where(below > 0, below, 1.0), smaller)


def t_quantile(tail: Any, df: Any) -> Array:
    """What Student's t exceeds with the probability ``tail``; the normal quantile for infinite degrees of freedom.

    ``scipy.stats.t.isf`` gives the same, fifty times slower for single numbers.
    """
    return -special.stdtrit(df, tail)


def critical(estimate: Estimate, alpha: Any) -> Array:
    """Two-sided critical value of ``difference / se``, midway between two classical ones; see the module."""
    total = estimate.seed_part + estimate.row_part
    weight = np.where(total > 0, estimate.seed_part / np.where(total > 0, total, 1.0), 1.0)
    tail = np.asarray(alpha) / 2
    cochran_cox = weight * t_quantile(tail, estimate.seed_df) + (1 - weight) * t_quantile(tail, estimate.row_df)
    return (t_quantile(tail, estimate.df) + cochran_cox) / 2


def p_value(estimate: Estimate) -> Array:
    """Two-sided p value: the level whose critical value is the statistic; NaN if nothing varies but the means differ.

    Found by bisection, because the critical value is a mean of two quantiles.
    """
    se, size = estimate.se, np.abs(estimate.difference)
    varies = se > SAME * np.maximum(size, SAME)
    statistic = size / np.where(varies, se, 1.0)
    low, high = np.full(statistic.shape, np.log(SMALLEST_P)), np.zeros(statistic.shape)
    for _ in range(STEPS):
        middle = (low + high) / 2
        larger = critical(estimate, np.exp(middle)) > statistic  # the level is too small
        low, high = np.where(larger, middle, low), np.where(larger, high, middle)
    p = np.where(statistic == 0, 1.0, np.exp((low + high) / 2))
    return np.where(varies, p, np.where(size == 0, 1.0, np.nan))


def p_values(estimates: Sequence[Estimate]) -> list[float | None]:
    """``p_value`` of single estimates, computed together; None instead of NaN."""
    if not estimates:
        return []
    together = Estimate(*(np.array([float(vars(each)[name]) for each in estimates]) for name in vars(estimates[0])))
    return [None if np.isnan(p) else float(p) for p in p_value(together)]


def _fixed_rows(difference: Array, part: Array, df: Array, component: Array) -> Estimate:
    nothing = np.zeros(np.shape(part))
    return Estimate(difference, part, df, nothing, np.full(nothing.shape, np.inf), component, nothing, nothing)


def _residual(values: Array) -> Array:
    """Mean square of what seeds and rows leave: ``sum (d_sr - d_s. - d_.r + d_..)^2 / ((n - 1)(R - 1))``."""
    n, rows = values.shape[-2:]
    by_seed, by_row = values.mean(axis=-1, keepdims=True), values.mean(axis=-2, keepdims=True)
    rest = values - by_seed - by_row + by_seed.mean(axis=-2, keepdims=True)
    return (rest**2).sum(axis=(-2, -1)) / ((n - 1) * (rows - 1))
