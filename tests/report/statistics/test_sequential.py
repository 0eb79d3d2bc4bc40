"""The anytime-valid t-test: its e-value against an integral, its sequence against its e-value, its errors in trials."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.config.schema import Relation
from harness.report.statistics.sequential import (
    ALPHA,
    FEWEST_PAIRS,
    Verdict,
    confidence_sequence,
    e_value,
    half_width,
    pairs_to_go,
    verdict_of,
)

TRIALS = 1000
HORIZON = 60  # pairs after which a trial without a verdict ends


def normal_differences(seed, n, mean=0.0, sd=1.0):
    return list(map(float, np.random.default_rng(seed).normal(mean, sd, n)))


@pytest.mark.parametrize(("n", "mean"), [(2, 0.5), (5, 0.0), (9, 1.0), (30, 0.3)])
def test_the_e_value_is_the_mixture_of_noncentral_t_densities(n, mean):
    values = normal_differences(n, n, mean)
    t = math.sqrt(n) * np.mean(values) / np.std(values, ddof=1)

    def weighted(effect):
        return stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * stats.norm.pdf(effect)

    mixture, _ = integrate.quad(weighted, -8, 8, limit=200)
    assert e_value(values) == pytest.approx(mixture / stats.t.pdf(t, n - 1), rel=1e-4)


def test_the_e_value_does_not_depend_on_the_unit():
    values = normal_differences(0, 8, 0.4)
    assert e_value([100 * value for value in values]) == pytest.approx(e_value(values))


@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_ends_of_the_sequence_are_the_means_that_are_just_refuted(n):
    values = normal_differences(n, n, 0.7, 3.0)
    found = confidence_sequence(values)
    assert e_value(values, found.lower) == pytest.approx(1 / ALPHA)
    assert e_value(values, found.upper) == pytest.approx(1 / ALPHA)
    assert e_value(values, found.lower - 0.1) > 1 / ALPHA > e_value(values, found.lower + 0.1)


def test_the_sequence_is_wider_than_an_interval_for_one_look_and_narrows():
    widths = [half_width(n, 1.0) for n in range(FEWEST_PAIRS, 400)]
    assert widths == sorted(widths, reverse=True)
    for n, width in enumerate(widths, start=FEWEST_PAIRS):
        assert width > stats.t.ppf(1 - ALPHA / 2, n - 1) / math.sqrt(n)


def test_fewer_than_five_pairs_decide_nothing_however_clear_they_are():
    assert FEWEST_PAIRS == 5
    clear = [100.0, 100.1, 100.2, 100.1, 100.05]
    for n in range(1, 5):
        found = confidence_sequence(clear[:n])
        assert (found.lower, found.upper) == (None, None)
        assert verdict_of(found, Relation.better, 0.0) is Verdict.undecided
    assert verdict_of(confidence_sequence(clear), Relation.better, 0.0) is Verdict.supported


def test_differences_that_do_not_differ_decide_nothing():
    found = confidence_sequence([3.0] * 20)
    assert (found.lower, found.sd) == (None, 0.0)
    assert e_value([3.0] * 20) == 1.0
    assert verdict_of(found, Relation.better, 0.0) is Verdict.undecided
    assert pairs_to_go(found, Relation.better, 0.0) is None


def test_no_differences_are_refused():
    with pytest.raises(ValueError, match="no differences"):
        confidence_sequence([])


def test_clear_evidence_does_not_overflow():
    assert e_value([1e9 + i * 1e-3 for i in range(400)]) > 1e100


@pytest.mark.parametrize(
    ("mean", "relation", "margin", "verdict"),
    [
        (5.0, Relation.better, 0.0, Verdict.supported),
        (-5.0, Relation.better, 0.0, Verdict.refuted),
        (0.0, Relation.better, 0.0, Verdict.undecided),
        (5.0, Relation.better, 9.0, Verdict.refuted),
        (5.0, Relation.better, 3.0, Verdict.supported),
        (0.0, Relation.equal, 3.0, Verdict.supported),
        (5.0, Relation.equal, 3.0, Verdict.refuted),
        (-5.0, Relation.equal, 3.0, Verdict.refuted),
        (3.0, Relation.equal, 3.0, Verdict.undecided),
    ],
)
def test_the_verdict_follows_from_the_sequence(mean, relation, margin, verdict):
    wave = [math.cos(i * math.pi) for i in range(20)]  # mean 0, standard deviation about 1
    assert verdict_of(confidence_sequence([mean + each for each in wave]), relation, margin) is verdict


def test_the_forecast_is_met_if_mean_and_deviation_stay():
    wave = [0.5 + math.cos(i * math.pi) for i in range(400)]
    early = confidence_sequence(wave[:10])
    expected = pairs_to_go(early, Relation.better, 0.0)
    assert expected > 0
    # As many pairs of the same mean and deviation decide, and one fewer does not.
    assert half_width(10 + expected, early.sd) < early.mean <= half_width(10 + expected - 1, early.sd)
    assert pairs_to_go(early, Relation.better, 0.0, at_most=expected - 1) is None
    assert pairs_to_go(confidence_sequence(wave), Relation.better, 0.0) == 0


def test_no_end_is_forecast_on_the_margin():
    on_margin = [1.0, -1.0] * 4
    assert pairs_to_go(confidence_sequence(on_margin), Relation.better, 0.0) is None


def ended(differences, relation, margin):
    """The verdict of a trial that looks after every pair and stops at the first verdict."""
    for n in range(1, len(differences) + 1):
        verdict = verdict_of(confidence_sequence(differences[:n]), relation, margin)
        if verdict is not Verdict.undecided:
            return verdict
    return Verdict.undecided


def shares(relation, margin, shift, horizon=HORIZON, draw=None):
    """How often each verdict is reached in ``TRIALS`` claims about two arms whose seeds have standard deviation 1."""
    rng = np.random.default_rng(20260726)
    draw = draw or (lambda n: rng.normal(size=n))
    found = [ended(list(map(float, shift + draw(horizon) - draw(horizon))), relation, margin) for _ in range(TRIALS)]
    return {verdict: found.count(verdict) / TRIALS for verdict in Verdict}


@pytest.mark.slow
def test_equal_arms_rarely_get_a_verdict():
    """A/A: "better" is neither supported nor refuted for two arms that are the same."""
    found = shares(Relation.better, 0.0, shift=0.0)
    assert found[Verdict.supported] + found[Verdict.refuted] <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("edge", [1.0, -1.0])
def test_arms_at_the_margins_edge_rarely_get_a_verdict(edge):
    found = shares(Relation.equal, 1.0, shift=edge)
    assert found[Verdict.supported] + found[Verdict.refuted] <= 0.065
    found = shares(Relation.better, edge, shift=edge)
    assert found[Verdict.supported] + found[Verdict.refuted] <= 0.065


@pytest.mark.slow
def test_a_difference_of_two_seed_deviations_is_decided_within_twelve_pairs():
    """Arms whose seeds are independent, which is the hardest case: pairs that go together decide sooner."""
    for shift, verdict in ((2.0, Verdict.supported), (-2.0, Verdict.refuted)):
        found = shares(Relation.better, 0.0, shift, horizon=12)
        assert found[verdict] >= 0.8
        assert sum(found.values()) - found[verdict] - found[Verdict.undecided] <= 0.065


@pytest.mark.slow
def test_equal_arms_are_found_equal_within_two_seed_deviations():
    found = shares(Relation.equal, 2.0, shift=0.0, horizon=30)
    assert found[Verdict.supported] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("world", ["heavy tails", "bounded", "few values", "skewed alike"])
def test_other_distributions_of_equal_arms_do_not_raise_the_error(world):
    rng = np.random.default_rng(1)
    draw = {
        "heavy tails": lambda n: rng.standard_t(3, size=n),
        "bounded": lambda n: rng.uniform(-1, 1, size=n),
        "few values": lambda n: rng.integers(0, 3, size=n).astype(float),
        "skewed alike": lambda n: rng.lognormal(size=n),  # both arms: their difference is symmetric
    }[world]
    found = shares(Relation.better, 0.0, shift=0.0, draw=draw)
    assert found[Verdict.supported] + found[Verdict.refuted] <= 0.065


@pytest.mark.slow
def test_an_interval_for_one_look_is_wrong_for_who_looks_after_every_pair():
    """What the sequence is for: the same A/A claims, judged by Student's t after each pair from the fifth on."""
    rng = np.random.default_rng(7)
    differences = rng.normal(size=(TRIALS, HORIZON)) - rng.normal(size=(TRIALS, HORIZON))
    found = np.zeros(TRIALS, dtype=bool)
    for n in range(FEWEST_PAIRS, HORIZON + 1):
        part = differences[:, :n]
        width = stats.t.ppf(1 - ALPHA / 2, n - 1) * part.std(axis=1, ddof=1) / math.sqrt(n)
        found |= np.abs(part.mean(axis=1)) > width
    assert found.mean() > 0.2


@pytest.mark.slow
def test_strongly_skewed_differences_break_the_promise_as_documented():
    rng = np.random.default_rng(7)
    found = [
        ended(list(map(float, rng.exponential(size=HORIZON) - 1)), Relation.better, 0.0) is not Verdict.undecided
        for _ in range(TRIALS)
    ]
    assert 0.065 < sum(found) / TRIALS < 0.15
