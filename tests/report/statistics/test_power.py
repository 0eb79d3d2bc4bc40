"""Power and the seeds and rows that it takes, against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from harness.report.statistics.model import Components
from harness.report.statistics.power import MOST_SEEDS, needed, power, visible_effect

FIXED_ROWS = Components(seed=4.0, row=0.0, residual=0.0)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_paired_seeds_have_the_power_of_the_one_sample_t_test(n):
    found = power(FIXED_ROWS, 1.5, n, np.inf, 0.05, paired=True)
    assert float(found) == pytest.approx(TTestPower().power(1.5 / 2, n, 0.05), rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_other_seeds_have_the_power_of_the_two_sample_t_test(n):
    """A component is that of the difference: two times the variance of each group."""
    found = power(FIXED_ROWS, 1.5, n, np.inf, 0.05, paired=False)
    assert float(found) == pytest.approx(TTestIndPower().power(1.5 / np.sqrt(2), n, 0.05), rel=1e-6)


def test_seeds_needed_are_those_of_statsmodels():
    plan = needed(FIXED_ROWS, 1.0, 3, None, 0.05, paired=True)
    assert plan.seeds == int(np.ceil(TTestPower().solve_power(1 / 2, None, 0.05, 0.8)))
    assert not plan.rows_known
    assert (plan.rows, plan.fewest_seeds) == (None, None)


def test_the_visible_effect_is_that_of_statsmodels():
    size = TTestPower().solve_power(None, 5, 0.05, 0.8)
    assert visible_effect(FIXED_ROWS, 5, None, 0.05, paired=True) == pytest.approx(2 * size, rel=1e-3)


def test_rows_suffice_if_seeds_hardly_vary():
    components = Components(seed=0.0, row=400.0, residual=0.0)
    plan = needed(components, 2.0, 3, 216, 0.05, paired=True)
    assert plan.rows == int(np.ceil(TTestPower().solve_power(2 / 20, None, 0.05, 0.8)))


def test_the_rows_needed_are_the_fewest():
    components = Components(seed=0.0, row=400.0, residual=100.0)
    plan = needed(components, 2.0, 3, 216, 0.05, paired=True)
    assert plan.rows is not None
    assert plan.rows > 216
    at = [float(power(components, 2.0, 3, rows, 0.05, paired=True)) for rows in (plan.rows - 1, plan.rows)]
    assert at[0] < 0.8 <= at[1]


def test_no_number_of_rows_suffices_if_three_seeds_vary_too_much():
    plan = needed(Components(seed=9.0, row=400.0, residual=0.0), 2.0, 3, 216, 0.05, paired=True)
    assert plan.rows is None
    assert plan.rows_known
    assert plan.fewest_seeds == int(np.ceil(TTestPower().solve_power(2 / 3, None, 0.05, 0.8)))


def test_no_number_of_seeds_suffices_on_rows_that_vary_too_much():
    components = Components(seed=1.0, row=400.0, residual=0.0)
    plan = needed(components, 1.0, 3, 216, 0.05, paired=True)
    assert plan.seeds is None
    assert float(power(components, 1.0, MOST_SEEDS, 216, 0.05, paired=True)) < 0.8
    assert plan.fewest_seeds is not None


def test_power_is_certain_without_variance_and_alpha_without_effect():
    nothing = Components(0.0, 0.0, 0.0)
    assert float(power(nothing, 1.0, 3, 216, 0.05, paired=True)) == 1
    assert visible_effect(nothing, 3, 216, 0.05, paired=True) == 0
    assert float(power(FIXED_ROWS, 0.0, 3, np.inf, 0.05, paired=True)) == pytest.approx(0.05, rel=1e-6)
