"""A mean with its confidence interval over seeds, or over seeds and rows."""

from collections.abc import Sequence

import numpy as np

from harness.report.statistics import variance
from harness.report.statistics.model import LEVEL, Interval, Over, RunScores
from harness.report.statistics.variance import Estimate

METHODS: dict[Over, str] = {"seeds": "t over seeds", "seeds and rows": "t over crossed seeds and rows"}


def mean_interval(runs: Sequence[RunScores], over: Over = "seeds") -> Interval:
    """Mean of a configuration's score over its seeds, with the interval of ``LEVEL``.

    Args:
        runs: of one configuration and one score, each of another seed.
        over: ``seeds``: what other seeds would give on these rows (Student's t); ``seeds and rows``: what other seeds
            would give on other rows of the same kind, if all runs have values per row.
    """
    values = np.array([run.aggregate for run in runs])
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()), None, None, n, "one seed")
    sd = float(values.std(ddof=1))
    if over == "seeds and rows" and (table := rows_of(runs)) is not None:
        return interval_of(variance.of_seeds_and_rows(table), n, "seeds and rows", sd)
    return interval_of(variance.of_seeds(values), n, "seeds", sd)


def interval_of(estimate: Estimate, n: int, over: Over, sd: float | None = None) -> Interval:
    """The interval of one estimate."""
    middle = float(estimate.difference)
    half = float(variance.critical(estimate, 1 - LEVEL) * estimate.se)
    se, df = float(estimate.se), float(estimate.df)
    return Interval(middle, middle - half, middle + half, n, METHODS[over], over, sd, se, df)


def rows_of(*groups: Sequence[RunScores]) -> "np.ndarray | None":
    """[seed, row] of all runs together; None unless all have values of the same rows, at least two."""
    runs = [run for group in groups for run in group]
    known = [run.rows for run in runs if run.rows is not None]
    alike = len({run.row_set for run in runs}) == 1 and len({len(values) for values in known}) == 1
    if len(known) < len(runs) or not alike or len(known[0]) < 2:
        return None
    return np.stack(known)
