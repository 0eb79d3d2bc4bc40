"""What finished runs say about the numbers of a rule: estimates, each with draws from its uncertainty.

A mean over seeds has draws from Student's t, with the variance over seeds pooled over the best settings of its method.
A best rate is the minimum of a parabola in the logarithm of the rate, fitted to the validation losses around the lowest
one; its draws refit the parabola with noise of the size that the fit leaves (a parametric bootstrap whose variance is
drawn, too, so that few points give wide intervals). Equal parts of two rules get equal draws. That an arm's rate was
chosen among several is not corrected for: the choice is by validation loss, so a score on the test split is unaffected.

Imports numpy: import this inside functions.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.report.shape.grammar import (
    HIGHEST,
    LOWEST,
    Arithmetic,
    Best,
    BestRate,
    Constant,
    Deviation,
    Gap,
    Number,
    Selection,
    Span,
    Spread,
)
from harness.report.shape.values import VALIDATION, equal, lower_is_better

DRAWS = 20_000
FARTHEST = 2  # rates on each side of the best one that the parabola may use
STEEPEST = 6.0  # times the rise to the next rate, beyond which the one after it is no part of the parabola


@dataclass(frozen=True)
class Observation:
    """One finished run."""

    arms: tuple[str, ...]
    method: str
    curve: str  # key of everything but rate and seed
    rate: float
    seed: int
    fields: Mapping[str, Any]
    values: Mapping[str, float]  # scores after training, and the validation loss


class Insufficient(Exception):
    """The runs cannot answer; says what is missing."""


@dataclass(frozen=True)
class Estimate:
    value: float
    draws: "np.ndarray" = field(repr=False)


@dataclass(frozen=True)
class _Cell:
    """Runs that differ only in their seed."""

    key: tuple[str, float]
    method: str
    runs: tuple[Observation, ...]

    def values(self, metric: str) -> "np.ndarray":
        return np.array([run.values[metric] for run in self.runs])


class Evidence:
    """The finished runs of one group.

    Args:
        arms: that the experiment declares; each needs a run before arms are ranked.
    """

    def __init__(self, observations: Sequence[Observation], arms: Sequence[str]) -> None:
        self._all, self.arms = list(observations), tuple(arms)

    def number(self, number: Number) -> Estimate:
        """The value of a number in a rule.

        Raises:
            Insufficient: runs, scores or seeds are missing.
        """
        match number:
            case Constant():
                return Estimate(number.value, np.full(DRAWS, number.value))
            case BestRate():
                return self._best_rate(number.of)
            case Best():
                return self._at_best_rate(number.of, number.metric)
            case Gap():
                return self.gap(number)
            case Spread():
                return _range(self.of_arms(number.metric, number.rate_of))
            case Span():
                return _range([point for _, point in self.along(number.axis, number.metric, number.of)])
            case Deviation():
                return self._deviation(number.of, number.metric)
            case Arithmetic():
                left, right = self.number(number.left), self.number(number.right)
                with np.errstate(all="ignore"):
                    value = _compute(number.sign, np.array([left.value]), np.array([right.value]))
                    return Estimate(float(value[0]), _compute(number.sign, left.draws, right.draws))

    def gap(self, gap: Gap, axis: str | None = None, at: Any = None) -> Estimate:
        """How much worse the first arm is; with ``axis``, at one of its values."""
        where = () if axis is None else ((axis, at),)
        one, other = (self._at_best_rate(Selection(each.arm, where), gap.metric) for each in (gap.one, gap.other))
        sign = 1.0 if lower_is_better(gap.metric) else -1.0
        return Estimate(sign * (one.value - other.value), sign * (one.draws - other.draws))

    def of_arms(self, metric: str, rate_of: Selection | None = None) -> list[Estimate]:
        """Each arm's score, in their order: at its own best rate, or at that of one of them."""
        if not self.arms:
            raise Insufficient("the experiment declares no arms")
        if rate_of is None:
            return [self._at_best_rate(Selection(arm), metric) for arm in self.arms]
        rate = self._inner_best_cell(rate_of, metric).key[1]
        found = []
        for arm in self.arms:
            runs = [run for run in self._selected(Selection(arm), metric) if math.isclose(run.rate, rate)]
            if not runs:
                raise Insufficient(f"no finished run of {arm} at the learning rate {rate:.4g}")
            found.append(self._mean(_lowest(runs), metric))
        return found

    def along(self, axis: str, metric: str, of: Selection) -> list[tuple[Any, Estimate]]:
        """The score at each value of an axis, rising, each at its best rate."""
        return [
            (value, self._at_best_rate(Selection(of.arm, (*of.where, (axis, value))), metric))
            for value in self.values_of(axis, of, metric)
        ]

    def gaps_along(self, axis: str, gap: Gap) -> list[tuple[Any, Estimate]]:
        """The gap at each value of an axis, rising."""
        values = self.values_of(axis, gap.one, gap.metric)
        return [(value, self.gap(gap, axis, value)) for value in values]

    def values_of(self, axis: str, of: Selection, metric: str) -> list[Any]:
        """The values of an axis among the runs of a selection, at least two.

        Raises:
            Insufficient: there are fewer.
        """
        runs = self._selected(of, metric)
        found = {run.fields[axis] for run in runs if _is_number(run.fields.get(axis))}
        if len(found) < 2:
            shown = ", ".join(map(str, sorted(found))) or "none"
            raise Insufficient(f"{axis} has fewer than two values among the finished runs ({shown})")
        return sorted(found)

    def _selected(self, of: Selection, metric: str) -> list[Observation]:
        runs = [run for run in self._all if of.arm is None or of.arm in run.arms]
        for name, value in of.where:
            if value in (HIGHEST, LOWEST):
                known = [run.fields[name] for run in runs if _is_number(run.fields.get(name))]
                if not known:
                    raise Insufficient(f"no finished run of {of.arm or 'any arm'} has a number {name}")
                value = max(known) if value == HIGHEST else min(known)
            runs = [run for run in runs if name in run.fields and equal(run.fields[name], value)]
        if not runs:
            raise Insufficient(f"no finished run of {of}")
        if any(metric not in run.values for run in runs):
            raise Insufficient(f"{metric} is not measured in all runs of {of}")
        return runs

    def _at_best_rate(self, of: Selection, metric: str) -> Estimate:
        return self._mean(self._inner_best_cell(of, metric), metric)

    def _inner_best_cell(self, of: Selection, metric: str) -> _Cell:
        """The best cell, whose rate has others on both sides unless its setting was run at one rate only."""
        runs = self._selected(of, metric)
        cell = _lowest(runs)
        rates = sorted({run.rate for run in runs if run.curve == cell.key[0]})
        if len(rates) > 1:
            _refuse_edge(rates, rates.index(cell.key[1]), of)
        return cell

    def _mean(self, cell: _Cell, metric: str) -> Estimate:
        values, (sd, df) = cell.values(metric), self._spread_over_seeds(cell.method, metric)
        size = math.sqrt(len(values))
        draws = _random("cell", metric, *map(str, cell.key)).standard_normal(DRAWS)
        scale = sd * np.sqrt(df / _random("variance", metric, cell.method).chisquare(df, DRAWS))
        return Estimate(float(values.mean()), values.mean() + draws * scale / size)

    def _deviation(self, of: Selection, metric: str) -> Estimate:
        values = _lowest(self._selected(of, metric)).values(metric)
        df = len(values) - 1
        if df < 1:
            raise Insufficient(f"one seed of {of}: nothing is known about the spread over seeds")
        sd = float(values.std(ddof=1))
        return Estimate(sd, sd * np.sqrt(df / _random("deviation", metric, str(of)).chisquare(df, DRAWS)))

    def _spread_over_seeds(self, method: str, metric: str) -> tuple[float, int]:
        """Standard deviation over seeds at the best rates of a method's settings, and its degrees of freedom."""
        squares, df = 0.0, 0
        for runs in _by_curve(run for run in self._all if run.method == method and metric in run.values).values():
            values = _lowest(runs).values(metric)
            squares += float(((values - values.mean()) ** 2).sum())
            df += len(values) - 1
        if df < 1:
            raise Insufficient(f"one seed of each setting of {method}: nothing is known about the spread over seeds")
        return math.sqrt(squares / df), df

    def _best_rate(self, of: Selection) -> Estimate:
        runs = self._selected(of, _chosen_by(self._selected(of, "loss")))
        by = _chosen_by(runs)
        around = _around_lowest(runs, by, of)
        curves = sorted({run.curve for run in around})
        middle = float(np.mean([math.log(run.rate) for run in around]))
        x = np.array([math.log(run.rate) - middle for run in around])
        y = np.array([run.values[by] for run in around])
        design = np.column_stack([x, x**2, *[[run.curve == curve for run in around] for curve in curves]]).astype(float)
        df = len(y) - design.shape[1]
        if df < 1:
            raise Insufficient(f"too few runs around the best rate of {of} for an interval; add a rate or a seed there")
        solved, *_ = np.linalg.lstsq(design, y, rcond=None)
        left = y - design @ solved
        if solved[1] <= 0:
            raise Insufficient(f"the losses of {of} have no minimum over the learning rates")
        random = _random("rate", str(of))
        scale = math.sqrt(float(left @ left) / df) * np.sqrt(df / random.chisquare(df, DRAWS))
        root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
        drawn = solved + (random.standard_normal((DRAWS, len(solved))) @ root.T) * scale[:, None]
        with np.errstate(all="ignore"):
            # Where no minimum is drawn, the optimum is beyond the rates, on the side that the line falls to.
            places = np.where(drawn[:, 1] > 0, -drawn[:, 0] / (2 * drawn[:, 1]), -np.sign(drawn[:, 0]) * np.inf)
            return Estimate(math.exp(middle - solved[0] / (2 * solved[1])), np.exp(middle + places))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compute(sign: str, left: "np.ndarray", right: "np.ndarray") -> "np.ndarray":
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    return left / right


def _range(points: Sequence[Estimate]) -> Estimate:
    draws, values = np.stack([each.draws for each in points]), [each.value for each in points]
    return Estimate(max(values) - min(values), draws.max(0) - draws.min(0))


def _chosen_by(runs: Sequence[Observation]) -> str:
    return VALIDATION if all(VALIDATION in run.values for run in runs) else "loss"


def _by_curve(runs: "Sequence[Observation] | Iterator[Observation]") -> dict[str, list[Observation]]:
    found: dict[str, list[Observation]] = defaultdict(list)
    for run in runs:
        found[run.curve].append(run)
    return found


def _cells(runs: Sequence[Observation]) -> list[_Cell]:
    found: dict[tuple[str, float], list[Observation]] = defaultdict(list)
    for run in runs:
        found[run.curve, run.rate].append(run)
    return [_Cell(key, members[0].method, tuple(members)) for key, members in found.items()]


def _lowest(runs: Sequence[Observation]) -> _Cell:
    """The setting with the lowest mean validation loss; with the lowest loss, if some runs measured none."""
    by = _chosen_by(runs)
    if any(by not in run.values for run in runs):
        raise Insufficient("some runs have neither a validation loss nor a loss")
    return min(_cells(runs), key=lambda cell: (float(cell.values(by).mean()), cell.key))


def _around_lowest(runs: Sequence[Observation], by: str, of: Selection) -> list[Observation]:
    """The runs at the best rate and at up to two rates on each side, as far as the losses rise like a parabola."""
    over: dict[float, list[float]] = defaultdict(list)
    for members in _by_curve(runs).values():
        cells = {cell.key[1]: float(cell.values(by).mean()) for cell in _cells(members)}
        for rate, value in cells.items():
            over[rate].append(value - min(cells.values()))
    rates = sorted(over)
    if len(rates) < 3:
        raise Insufficient(f"{len(rates)} learning rates of {of}; a parabola needs at least three")
    means = [float(np.mean(over[rate])) for rate in rates]
    best = int(np.argmin(means))
    _refuse_edge(rates, best, of)
    limit = STEEPEST * max(means[best - 1] - means[best], means[best + 1] - means[best])
    kept = {rates[best - 1], rates[best], rates[best + 1]}
    for place in (best - FARTHEST, best + FARTHEST):
        if 0 <= place < len(rates) and means[place] - means[best] <= limit:
            kept.add(rates[place])
    return [run for run in runs if run.rate in kept]


def _random(*key: str) -> "np.random.Generator":
    """The same draws for the same part of a rule, whatever else is drawn."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256("\n".join(key).encode()).digest()[:8], "big"))


def _refuse_edge(rates: Sequence[float], best: int, of: Selection) -> None:
    """Beyond the edge of a grid there may be a better rate."""
    if best in (0, len(rates) - 1):
        side = "below" if best == 0 else "above"
        raise Insufficient(f"the best rate of {of}, {rates[best]:.4g}, is at the edge of the grid; add rates {side} it")
