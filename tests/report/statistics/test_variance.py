"""Estimates, intervals and p values against scipy and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.report.statistics import variance
from tests.support.scores import crossed


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def half(estimate, alpha=0.05):
    return float(variance.critical(estimate, alpha) * estimate.se)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_one_sample_of_seeds_gives_students_interval_and_p_value(rng, n):
    values = rng.normal(1, 2, n)
    estimate, expected = variance.of_seeds(values), stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert float(estimate.difference) == pytest.approx((low + high) / 2)
    assert half(estimate) == pytest.approx((high - low) / 2)
    assert float(variance.p_value(estimate)) == pytest.approx(expected.pvalue, rel=1e-6)


def test_paired_seeds_give_the_paired_t_test(rng):
    one, other = rng.normal(0, 1, 4), rng.normal(1, 1, 4)
    assert float(variance.p_value(variance.of_seeds(other - one))) == pytest.approx(
        stats.ttest_rel(other, one).pvalue, rel=1e-6
    )


@pytest.mark.parametrize(("n", "m"), [(2, 3), (3, 3), (3, 10)])
def test_two_groups_of_seeds_give_welchs_test(rng, n, m):
    one, other = rng.normal(0, 1, n), rng.normal(1, 4, m)
    estimate, expected = variance.of_two_groups(one, other), stats.ttest_ind(other, one, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert float(estimate.difference) == pytest.approx(other.mean() - one.mean())
    assert half(estimate) == pytest.approx((high - low) / 2)
    assert float(estimate.df) == pytest.approx(expected.df)
    assert float(variance.p_value(estimate)) == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize("df", [1, 2, 2.5, 9, 215, np.inf])
@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-6])
def test_quantiles_are_those_of_scipy(tail, df):
    assert float(variance.t_quantile(tail, df)) == pytest.approx(stats.t.isf(tail, df), rel=1e-6)


def test_mean_squares_are_those_of_the_two_way_analysis_of_variance(rng):
    from statsmodels.api import stats as sm_stats
    from statsmodels.formula.api import ols

    table = crossed(rng, (4, 30), mean=1, seed=1, row=2, rest=3)
    frame = _frame(table)
    anova = sm_stats.anova_lm(ols("value ~ C(seed) + C(row)", frame).fit())
    squares = anova["sum_sq"] / anova["df"]
    estimate = variance.of_seeds_and_rows(table)
    assert float(estimate.residual) == pytest.approx(squares["Residual"])
    assert float(estimate.seed_part) == pytest.approx(squares["C(seed)"] / table.size)
    assert float(estimate.row_part) == pytest.approx((squares["C(row)"] - squares["Residual"]) / table.size)


def test_components_are_those_of_the_crossed_mixed_model(rng):
    """REML of balanced data is the analysis of variance; statsmodels' MixedLM takes crossed effects as components."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    table = crossed(rng, (6, 25), mean=1, seed=2, row=2, rest=1)
    formulas = {"seed": "0 + C(seed)", "row": "0 + C(row)"}
    model = MixedLM.from_formula("value ~ 1", groups="all", vc_formula=formulas, data=_frame(table)).fit(reml=True)
    found = dict(zip(model.model.exog_vc.names, model.vcomp, strict=True))
    estimate = variance.of_seeds_and_rows(table)
    assert float(estimate.seed) == pytest.approx(found["seed"], rel=1e-3)
    assert float(estimate.row) == pytest.approx(found["row"], rel=1e-3)
    assert float(estimate.residual) == pytest.approx(model.scale, rel=1e-3)
    assert float(estimate.se) == pytest.approx(float(model.bse_fe.iloc[0]), rel=1e-3)
    assert float(estimate.difference) == pytest.approx(float(model.fe_params.iloc[0]))


def test_the_variance_of_groups_that_are_not_paired_is_unbiased(rng):
    """The mean estimate over many samples is the variance that these samples have."""
    shared = rng.normal(0, 2, (4000, 1, 40))  # rows favor nobody: they leave the difference alone
    one = shared + crossed(rng, (4000, 3, 40), mean=0, seed=1, row=1, rest=2)
    other = shared + crossed(rng, (4000, 5, 40), mean=1, seed=2, row=1, rest=3)
    estimate = variance.of_two_groups_and_rows(one, other)
    expected = 1 / 3 + 4 / 5 + 2 / 40 + 4 / (3 * 40) + 9 / (5 * 40)
    assert float((estimate.se**2).mean()) == pytest.approx(expected, rel=0.05)
    assert float(estimate.difference.var()) == pytest.approx(expected, rel=0.06)
    assert float(estimate.seed.mean()) == pytest.approx(1 + 4, rel=0.05)
    assert float(estimate.row.mean()) == pytest.approx(2, rel=0.1)
    assert float(estimate.residual.mean()) == pytest.approx(4 + 9, rel=0.02)


def test_many_rows_leave_the_interval_of_the_seeds(rng):
    table = crossed(rng, (3, 20_000), mean=1, seed=5, row=0.1, rest=0.1)
    alone = variance.of_seeds(table.mean(axis=1))
    assert half(variance.of_seeds_and_rows(table)) == pytest.approx(half(alone), rel=0.01)


def test_the_critical_value_lies_between_welch_satterthwaite_and_cochran_cox(rng):
    estimate = variance.of_seeds_and_rows(crossed(rng, (500, 3, 50), mean=0, seed=1, row=5, rest=3))
    satterthwaite = stats.t.isf(0.025, estimate.df)
    parts = estimate.seed_part + estimate.row_part
    weighted = estimate.seed_part * stats.t.isf(0.025, 2) + estimate.row_part * stats.t.isf(0.025, 49)
    assert variance.critical(estimate, 0.05) == pytest.approx((satterthwaite + weighted / parts) / 2, rel=1e-6)


def test_a_p_value_is_the_level_whose_interval_ends_at_zero(rng):
    estimate = variance.of_seeds_and_rows(crossed(rng, (50, 3, 30), mean=1, seed=1, row=2, rest=1))
    p = variance.p_value(estimate)
    assert variance.critical(estimate, p) * estimate.se == pytest.approx(np.abs(estimate.difference), rel=1e-6)


def test_leading_axes_change_nothing(rng):
    table = crossed(rng, (5, 3, 20), mean=1, seed=1, row=1, rest=1)
    together = variance.of_seeds_and_rows(table)
    for number, single in enumerate(map(variance.of_seeds_and_rows, table)):
        assert float(single.se) == pytest.approx(float(together.se[number]))
        assert float(variance.p_value(single)) == pytest.approx(float(variance.p_value(together)[number]))


def test_without_variance_equal_means_are_equal_and_others_have_no_p_value():
    assert float(variance.p_value(variance.of_seeds(np.zeros(3)))) == 1
    assert np.isnan(variance.p_value(variance.of_seeds(np.full(3, 0.1))))


def _frame(table):
    seeds, rows = np.indices(table.shape)
    return pd.DataFrame({"value": table.ravel(), "seed": seeds.ravel(), "row": rows.ravel(), "all": 1})
