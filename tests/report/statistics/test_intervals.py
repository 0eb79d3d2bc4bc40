"""Means over seeds with their intervals."""

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics.intervals import mean_interval, rows_of
from tests.support.scores import a_run, crossed, runs_of, with_rows


def test_seeds_give_students_interval():
    values = [70.0, 72.0, 75.0]
    found = mean_interval(runs_of("lora", values))
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.mean, found.n, found.df) == (pytest.approx(np.mean(values)), 3, 2)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert (found.over, found.method) == ("seeds", "t over seeds")


def test_one_seed_has_a_mean_and_no_interval():
    found = mean_interval(runs_of("lora", [70.0]))
    assert (found.mean, found.low, found.high, found.n, found.half_width) == (70.0, None, None, 1, None)
    assert found.method == "one seed"


def test_other_rows_widen_the_interval():
    runs = with_rows("lora", crossed(np.random.default_rng(1), (3, 50), mean=60, seed=1, row=20, rest=10))
    alone, both = mean_interval(runs), mean_interval(runs, over="seeds and rows")
    assert both.mean == pytest.approx(alone.mean)
    assert both.over == "seeds and rows"
    assert both.se > alone.se


def test_without_values_per_row_the_interval_says_that_it_is_over_seeds():
    assert mean_interval(runs_of("lora", [1.0, 2.0]), over="seeds and rows").over == "seeds"


def test_rows_of_several_sets_are_not_put_together():
    table = np.ones((2, 5))
    runs = with_rows("lora", table)
    assert rows_of(runs).shape == (2, 5)
    assert rows_of(runs, with_rows("ia3", table, row_set="other rows")) is None
    assert rows_of(runs, [a_run("ia3", 0, 1.0)]) is None
    assert rows_of(with_rows("lora", table[:, :1])) is None
