"""Comparisons with a reference: variance, correction, verdicts."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness.report.statistics.comparisons import compare_with, holm
from tests.support.scores import crossed, runs_of, with_rows


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def one(reference, other, **settings):
    [found] = compare_with(reference[0].configuration, [*reference, *other], **settings)
    return found


def test_the_same_seeds_are_paired():
    before, after = [70.0, 72.0, 75.0], [71.0, 73.5, 76.0]
    found = one(runs_of("lora", before), runs_of("ia3", after))
    expected = stats.ttest_rel(after, before)
    assert found.paired
    assert found.difference == pytest.approx(np.mean(after) - np.mean(before))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.interval.low == pytest.approx(expected.confidence_interval().low)


def test_the_order_of_runs_does_not_matter_for_pairs():
    reference, other = runs_of("lora", [70.0, 72.0, 75.0]), runs_of("ia3", [71.0, 73.5, 76.0])
    assert one(reference, other) == one(reference[::-1], other)


def test_other_seeds_are_compared_by_welchs_test():
    before, after = [70.0, 72.0, 75.0], [71.0, 73.5, 76.0, 80.0]
    found = one(runs_of("lora", before, seeds=[0, 1, 2]), runs_of("ia3", after, seeds=[3, 4, 5, 6]))
    expected = stats.ttest_ind(after, before, equal_var=False)
    assert not found.paired
    assert (found.reference_seeds, found.other_seeds) == ((0, 1, 2), (3, 4, 5, 6))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.interval.high == pytest.approx(expected.confidence_interval().high)


def test_rows_count_as_a_source_of_variance(rng):
    """Three seeds that agree to the digit show nothing if the rows disagree."""
    base = crossed(rng, (1, 40), mean=50, seed=0, row=0, rest=30).repeat(3, axis=0)
    other = base + crossed(rng, (1, 40), mean=2, seed=0, row=30, rest=0).repeat(3, axis=0)
    steady = np.array([[0.0], [0.01], [-0.01]])
    found = one(with_rows("lora", base), with_rows("ia3", other + steady))
    assert found.rows == 40
    assert found.interval.over == "seeds and rows"
    assert found.p == pytest.approx(stats.ttest_1samp((other - base)[0], 0).pvalue, abs=0.01)
    assert found.components.row == pytest.approx((other - base)[0].var(ddof=1), rel=1e-3)
    assert found.verdict == "undecided"
    alone = one(with_rows("lora", base, rows=None), with_rows("ia3", other + steady, rows=None))
    assert (alone.rows, alone.interval.over) == (None, "seeds")
    assert alone.p < 0.001


def test_rows_count_for_seeds_that_are_not_paired(rng):
    tables = [crossed(rng, (3, 60), mean=50, seed=1, row=5, rest=10) for _ in range(2)]
    found = one(with_rows("lora", tables[0]), with_rows("ia3", tables[1], seeds=[7, 8, 9]))
    assert (found.paired, found.rows) == (False, 60)
    assert found.difference == pytest.approx(tables[1].mean() - tables[0].mean())


@pytest.mark.parametrize("p", [[], [0.2], [0.01, 0.04, 0.03], [0.5, 0.5, 0.9], [0.0, 1e-9, 0.04, 0.04, 0.01]])
def test_holms_correction_is_that_of_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1] if p else [])


def test_p_values_are_corrected_over_the_comparisons_with_the_reference():
    runs = (
        runs_of("lora", [70.0, 72.0, 75.0]) + runs_of("ia3", [60.0, 62.1, 65.0]) + runs_of("full", [71.0, 72.0, 76.0])
    )
    found = compare_with("lora", runs)
    assert [each.other for each in found] == ["full", "ia3"]
    assert [each.p_holm for each in found] == pytest.approx(holm([each.p for each in found]))


def test_a_reference_picked_by_its_score_is_corrected_for_all_others():
    runs = [run for k in range(4) for run in runs_of(f"m{k}", [70.0 - k, 72.0 - 1.1 * k, 75.0 - 0.9 * k])]
    for each in compare_with("m0", runs, chosen_by_score=True):
        assert each.p_holm == pytest.approx(min(1.0, 3 * each.p))


@pytest.mark.parametrize(("lower_is_better", "verdict"), [(False, "worse"), (True, "better")])
def test_an_order_beyond_noise_is_claimed_in_the_direction_of_the_score(lower_is_better, verdict):
    found = one(
        runs_of("lora", [70.0, 71.0, 72.0]), runs_of("ia3", [30.0, 31.1, 31.9]), lower_is_better=lower_is_better
    )
    assert found.verdict == verdict


def test_no_order_is_claimed_inside_the_noise_floor():
    """Pairs that agree closely, while the seeds of each differ by far more than the two."""
    found = one(runs_of("lora", [60.0, 70.0, 80.0]), runs_of("ia3", [61.0, 71.01, 80.99]))
    assert found.p < 0.001
    assert found.floor > 20
    assert found.verdict == "inside noise"


def test_one_seed_gives_no_verdict():
    found = one(runs_of("lora", [60.0, 70.0]), runs_of("ia3", [99.0]), minimum_effect=1.0)
    assert (found.verdict, found.p, found.p_holm, found.interval.low, found.needed) == ("too few seeds", *[None] * 4)
    assert found.difference == pytest.approx(34.0)


def test_an_interval_within_the_minimum_effect_is_equivalence():
    found = one(runs_of("lora", [70.0, 70.3, 70.5]), runs_of("ia3", [70.1, 70.2, 70.6]), minimum_effect=1.0)
    assert found.verdict == "equivalent"
    assert one(runs_of("lora", [70.0, 70.3, 70.5]), runs_of("ia3", [70.1, 70.2, 70.6])).verdict == "inside noise"


def test_means_that_differ_without_variance_are_not_judged():
    found = one(runs_of("lora", [70.0, 70.0, 70.0]), runs_of("ia3", [71.0, 71.0, 71.0]))
    assert (found.p, found.verdict) == (None, "undecided")


def test_a_plan_assumes_no_less_variance_over_seeds_than_the_others_show(rng):
    base = crossed(rng, (3, 60), mean=50, seed=0, row=5, rest=5)
    calm = base + rng.normal(0, 5, (3, 60))
    wild = base + np.array([[-20.0], [0.0], [20.0]]) + rng.normal(0, 5, (3, 60))
    runs = with_rows("lora", base) + with_rows("calm", calm) + with_rows("wild", wild)
    plans = {each.other: each.needed for each in compare_with("lora", runs, minimum_effect=3.0)}
    alone = one(with_rows("lora", base), with_rows("calm", calm), minimum_effect=3.0).needed
    assert plans["calm"].seeds > alone.seeds


def test_only_the_references_group_is_compared():
    runs = runs_of("lora", [70.0, 71.0]) + runs_of("ia3", [1.0, 2.0], group="other data")
    assert compare_with("lora", runs) == []


def test_several_scores_or_an_unknown_reference_are_refused():
    with pytest.raises(ValueError, match="compare one at a time"):
        compare_with("lora", runs_of("lora", [1.0]) + runs_of("lora", [1.0], metric="loss"))
    with pytest.raises(ValueError, match="reference=full: 0 groups"):
        compare_with("full", runs_of("lora", [1.0]))
