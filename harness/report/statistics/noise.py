"""The A/A noise floor: how far apart two means of n seeds are if nothing but chance tells them apart.

Of k runs of one plan under several seeds with the sample standard deviation s, the difference D of two further means of
n seeds each follows ``D / (s * sqrt(1/n + 1/n)) ~ t(k - 1)``, the t distribution of two samples of equal variance
(Hahn and Meeker 1991, *Statistical Intervals*: prediction intervals for means of future samples). So 95 % of such
differences lie within

    floor = t(0.975, k - 1) * s * sqrt(2 / n)

Spreads of several configurations of one method are pooled: ``s^2 = sum (k_i - 1) s_i^2 / sum (k_i - 1)``, with as many
degrees of freedom as the denominator. Runs of one plan and seed under changed numerics (device, threads, attention)
give a second spread in the same way; the larger floor holds.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from harness.report.statistics.model import LEVEL, NoiseFloor, RunScores
from harness.report.statistics.variance import t_quantile


def noise_floors(runs: Iterable[RunScores], n: int) -> dict[tuple[str, str, str], NoiseFloor]:
    """Floors of a difference of means of ``n`` seeds, by (group, method, metric).

    A method without a configuration of at least two seeds, and without changed numerics, has none.
    """
    by_method: dict[tuple[str, str, str], list[RunScores]] = defaultdict(list)
    for run in runs:
        by_method[run.group, run.method, run.metric].append(run)
    floors = {key: _floor(key, members, n) for key, members in by_method.items()}
    return {key: floor for key, floor in floors.items() if floor is not None}


def half_width(sd: float, df: int, n_reference: int, n_other: int) -> float:
    """``t(0.975, df) * sd * sqrt(1 / n + 1 / m)``: holds 95 % of the differences of means of n and of m seeds."""
    return float(t_quantile((1 - LEVEL) / 2, df)) * sd * math.sqrt(1 / n_reference + 1 / n_other)


def floor_between(floors: Iterable[NoiseFloor | None], n_reference: int, n_other: int) -> float | None:
    """The floor of a comparison: that of the noisier of its two methods; None if neither is known."""
    known = [floor for floor in floors if floor is not None]
    widths = [width for floor in known for width in _widths(floor, n_reference, n_other).values()]
    return max(widths) if widths else None


def one_run_a_seed(runs: Iterable[RunScores]) -> list[RunScores]:
    """One run of each configuration, score and seed: that of the numerics which most runs have.

    Runs of one seed under several numerics are not replicates; the others count for the noise floor alone.
    """
    runs = list(runs)
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.numerics] += 1
    chosen: dict[tuple[str, str, str, int], RunScores] = {}
    for run in sorted(runs, key=lambda run: (-counts[run.numerics], run.numerics, run.fingerprint)):
        chosen.setdefault((run.group, run.configuration, run.metric, run.seed), run)
    return sorted(chosen.values(), key=lambda run: (run.group, run.metric, run.configuration, run.seed))


def _floor(key: tuple[str, str, str], runs: Sequence[RunScores], n: int) -> NoiseFloor | None:
    group, method, metric = key
    over_seeds: dict[str, list[float]] = defaultdict(list)
    for run in one_run_a_seed(runs):
        over_seeds[run.configuration].append(run.aggregate)
    over_numerics: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for run in runs:
        over_numerics[run.configuration, run.seed][run.numerics] = run.aggregate
    sd, df, count = pooled(over_seeds.values())
    numerics_sd, numerics_df, _ = pooled([list(values.values()) for values in over_numerics.values()])
    if not df and not numerics_df:
        return None
    found = NoiseFloor(
        method=method,
        group=group,
        metric=metric,
        n=n,
        sd=sd,
        df=df,
        half_width=0.0,
        configurations=count,
        numerics_sd=numerics_sd if numerics_df else None,
        numerics_df=numerics_df,
    )
    widths = _widths(found, n, n)
    source = max(widths, key=lambda name: widths[name])
    return replace(found, half_width=widths[source], source=source)


def pooled(samples: Iterable[Sequence[float]]) -> tuple[float, int, int]:
    """Pooled standard deviation, its degrees of freedom, and the number of samples that have any."""
    several = [np.asarray(sample) for sample in samples if len(sample) > 1]
    df = sum(len(sample) - 1 for sample in several)
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in several)
    return (math.sqrt(squares / df) if df else 0.0), df, len(several)


def _widths(floor: NoiseFloor, n_reference: int, n_other: int) -> "dict[Literal['seeds', 'numerics'], float]":
    """Both floors, as far as they are known."""
    widths: dict[Literal["seeds", "numerics"], float] = {}
    if floor.df:
        widths["seeds"] = half_width(floor.sd, floor.df, n_reference, n_other)
    if floor.numerics_sd is not None:
        widths["numerics"] = half_width(floor.numerics_sd, floor.numerics_df, n_reference, n_other)
    return widths
