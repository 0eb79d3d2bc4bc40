"""Each configuration against a reference, on one score: difference, interval, p value, verdict.

Both sources of variance count: seeds, and, if every run has values per row, rows. Nothing is resampled: a bootstrap
over 3 seeds has 10 distinct samples to draw, and covers far less than it claims (docs/statistics.md).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.report.statistics import noise, variance
from harness.report.statistics.intervals import interval_of, rows_of
from harness.report.statistics.model import (
    ALPHA,
    Comparison,
    Components,
    Interval,
    Needed,
    NoiseFloor,
    RunScores,
    Verdict,
)
from harness.report.statistics.power import needed

Floors = Mapping[tuple[str, str, str], NoiseFloor]


def compare_with(
    reference: str,
    runs: Iterable[RunScores],
    *,
    lower_is_better: bool = False,
    minimum_effect: float | None = None,
    chosen_by_score: bool = False,
) -> list[Comparison]:
    """Every other configuration of the reference's group against it, on one score, by their names.

    Args:
        reference: key of a configuration.
        runs: of one metric; those of other groups are not compared.
        minimum_effect: the smallest difference that matters; see ``Comparison.needed`` and the verdict ``equivalent``.
        chosen_by_score: the reference was picked because it has the best mean. Then ``worse`` says that a configuration
            is not the best: with 95 % confidence the best is the reference or one of the others (selection of a subset,
            Gupta 1965, Technometrics 7:225; comparisons with the best, Hsu 1981, Annals of Statistics 9:1026). Each p
            value is multiplied by the number of others, because each of them could have beaten the truly best one.

    Raises:
        ValueError: there is no run of the reference, or the runs have several metrics.
    """
    runs = list(runs)
    if len({run.metric for run in runs}) > 1:
        raise ValueError(f"metrics {', '.join(sorted({run.metric for run in runs}))}: compare one at a time")
    groups = {run.group for run in runs if run.configuration == reference}
    if len(groups) != 1:
        raise ValueError(f"reference={reference}: {len(groups)} groups have runs of it instead of one")
    members = [run for run in runs if run.group in groups]
    by_configuration: dict[str, list[RunScores]] = defaultdict(list)
    for run in noise.one_run_a_seed(members):
        by_configuration[run.configuration].append(run)
    floors = noise.noise_floors(members, n=2)
    base = by_configuration.pop(reference)
    others = sorted(by_configuration.values(), key=lambda group: (group[0].name, group[0].configuration))
    compared = [compare(base, group, floors) for group in others]
    p_values = iter(variance.p_values([estimate for _, estimate in compared if estimate is not None]))
    return judged(
        [each if estimate is None else replace(each, p=next(p_values)) for each, estimate in compared],
        lower_is_better=lower_is_better,
        minimum_effect=minimum_effect,
        factor=len(others) if chosen_by_score else None,
    )


def compare(
    reference: Sequence[RunScores], other: Sequence[RunScores], floors: Floors
) -> "tuple[Comparison, variance.Estimate | None]":
    """One configuration against another, not yet tested nor judged, and its estimate; None: too few seeds.

    Seeds are paired if both have the same ones: they share the order of the data, and a seed may favor all alike.
    """
    reference, other = sorted(reference, key=lambda run: run.seed), sorted(other, key=lambda run: run.seed)
    first, second = reference[0], other[0]
    seeds, other_seeds = tuple(run.seed for run in reference), tuple(run.seed for run in other)
    paired = seeds == other_seeds
    both = [floors.get((run.group, run.method, run.metric)) for run in (first, second)]
    found = Comparison(
        reference=first.configuration,
        other=second.configuration,
        difference=_mean(other) - _mean(reference),
        interval=_without_variance(reference, other),
        p=None,
        p_holm=None,
        verdict="too few seeds",
        metric=first.metric,
        group=first.group,
        reference_name=first.name,
        other_name=second.name,
        reference_seeds=seeds,
        other_seeds=other_seeds,
        paired=paired,
        floor=noise.floor_between(both, len(seeds), len(other_seeds)),
    )
    if min(len(seeds), len(other_seeds)) < 2:
        return found, None
    estimate, rows = estimate_of(reference, other, paired)
    found = replace(
        found,
        interval=interval_of(estimate, min(len(seeds), len(other_seeds)), "seeds and rows" if rows else "seeds"),
        verdict="undecided",
        rows=rows,
        components=Components(float(estimate.seed), float(estimate.row), float(estimate.residual)),
    )
    return found, estimate


def estimate_of(
    reference: Sequence[RunScores], other: Sequence[RunScores], paired: bool
) -> "tuple[variance.Estimate, int | None]":
    """The difference with its variance, and the number of rows that went into it; None: seeds alone."""
    if (both := rows_of(reference, other)) is not None:
        before, after = both[: len(reference)], both[len(reference) :]
        rows = both.shape[-1]
        if paired:
            return variance.of_seeds_and_rows(after - before), rows
        return variance.of_two_groups_and_rows(before, after), rows
    before, after = (np.array([run.aggregate for run in group]) for group in (reference, other))
    return (variance.of_seeds(after - before) if paired else variance.of_two_groups(before, after)), None


def judged(
    comparisons: Sequence[Comparison],
    *,
    lower_is_better: bool = False,
    minimum_effect: float | None = None,
    factor: int | None = None,
) -> list[Comparison]:
    """The comparisons of one family with corrected p values, verdicts, and what it takes to see the minimum effect.

    Holm's correction bounds the probability of a single wrong order in the family by ``ALPHA``.

    Args:
        factor: multiply each p value by this number instead (Bonferroni).
    """
    tested = [each.p for each in comparisons if each.p is not None]
    corrected = iter(holm(tested) if factor is None else [min(1.0, p * factor) for p in tested])
    alpha = ALPHA / max(1, factor or len(tested))
    seed_variances = [each.components.seed for each in comparisons if each.components is not None]
    usual = sum(seed_variances) / len(seed_variances) if seed_variances else 0.0
    finished = []
    for each in comparisons:
        p_holm = None if each.p is None else next(corrected)
        each = replace(each, p_holm=p_holm)
        each = replace(each, verdict=_verdict(each, lower_is_better, minimum_effect))
        finished.append(replace(each, needed=_needed(each, minimum_effect, alpha, usual)))
    return finished


def holm(p_values: Sequence[float]) -> list[float]:
    """p values after Holm's correction: the k-th smallest of m times m - k + 1, none below the one before, at most 1.

    Holm 1979, Scandinavian Journal of Statistics 6:65. The same as ``multipletests(method="holm")`` of statsmodels,
    which collects garbage at each call: at least 35 ms, and more the larger the process.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for passed, place in enumerate(np.argsort(p_values)):
        largest = max(largest, p_values[place] * (len(p_values) - passed))
        corrected[place] = min(1.0, largest)
    return corrected


def _verdict(each: Comparison, lower_is_better: bool, minimum_effect: float | None) -> Verdict:
    if each.interval.low is None or each.interval.high is None:
        return "too few seeds"
    beyond = each.floor is None or abs(each.difference) > each.floor
    if beyond and each.p_holm is not None and each.p_holm < ALPHA:
        return "better" if (each.difference < 0) == lower_is_better else "worse"
    if minimum_effect is not None and -minimum_effect < each.interval.low <= each.interval.high < minimum_effect:
        return "equivalent"
    return "undecided" if beyond else "inside noise"


def _needed(each: Comparison, minimum_effect: float | None, alpha: float, usual: float) -> Needed | None:
    """What it takes to see the minimum effect.

    Args:
        usual: mean variance over seeds of the family. A comparison is planned with no less: of 3 seeds the own estimate
            is often 0 by chance, which would promise that more rows suffice.
    """
    if minimum_effect is None or each.components is None or each.verdict in ("better", "worse"):
        return None
    planned = replace(each.components, seed=max(each.components.seed, usual))
    seeds = min(len(each.reference_seeds), len(each.other_seeds))
    return needed(planned, minimum_effect, seeds, each.rows, alpha, each.paired)


def _without_variance(reference: Sequence[RunScores], other: Sequence[RunScores]) -> Interval:
    n = min(len(reference), len(other))
    return Interval(_mean(other) - _mean(reference), None, None, n, "one seed")


def _mean(runs: Sequence[RunScores]) -> float:
    return float(np.mean([run.aggregate for run in runs]))
