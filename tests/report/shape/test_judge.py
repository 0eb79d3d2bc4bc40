"""Verdicts on made runs whose truth is known."""

import math

import numpy as np
import pytest

from harness.report.shape.evidence import Evidence, Observation
from harness.report.shape.grammar import BestRate, Selection, parse_rule
from harness.report.shape.judge import Judged, judge_rule, verdict_of

RATES = [10 ** (place / 2) for place in range(-9, 0)]  # nine half-decades


def curve(arm, best, lowest=1.0, noise=0.004, seeds=3, rates=RATES, width=0.05, rng=None, **fields):
    """Runs of one arm whose loss is a parabola in the logarithm of the rate."""
    rng = rng or np.random.default_rng([*arm.encode(), int(1e6 * best)])
    found = []
    for rate in rates:
        for seed in range(seeds):
            loss = lowest + width * math.log(rate / best) ** 2 + noise * rng.standard_normal()
            values = {"loss": loss, "validation_loss": loss + noise * rng.standard_normal(), "rouge_l": 100 - 50 * loss}
            name = f"{arm} {sorted(fields.items())}"
            own = {**{key.replace("__", "."): value for key, value in fields.items()}, "seed": seed}
            found.append(Observation((arm,), arm.split("_")[0], name, rate, seed, own, values))
    return found


def verdict(text, *curves, arms=None):
    runs = [run for each in curves for run in each]
    named = arms or list(dict.fromkeys(run.arms[0] for run in runs))
    return judge_rule(text, parse_rule(text), Evidence(runs, named))


def test_ratio_of_best_rates_is_the_parabolas_not_the_grids():
    tuned = [curve("lora", 2e-3), curve("full", 2e-4)]
    judged = verdict("within(best_rate(lora) / best_rate(full), 5, 20)", *tuned)
    assert judged.verdict == "agrees"
    assert float(judged.measured.split()[0]) == pytest.approx(10, rel=0.1)
    assert verdict("within(best_rate(lora) / best_rate(full), 0.5, 2)", *tuned).verdict == "does not agree"
    assert verdict("within(best_rate(lora) / best_rate(full), 9.999, 10.001)", *tuned).verdict == "underpowered"


def test_noise_makes_a_rule_underpowered_and_not_wrong():
    noisy = [curve("lora", 2e-3, noise=1.0), curve("full", 2e-4, noise=1.0)]
    assert verdict("within(best_rate(lora) / best_rate(full), 5, 20)", *noisy).verdict == "underpowered"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("best_rate(lora) < 1", "at the edge of the grid; add rates above it"),
        ("best_rate(full) < 1", "2 learning rates of full"),
        ("best_rate(dora) < 1", "no finished run of dora"),
        ("best(chrf, lora) < 1", "chrf is not measured"),
        ("monotone(loss, lora.r)", "fewer than two values"),
        ("best(loss, single) < 1", "nothing is known about the spread"),
        ("best_rate(single) < 1", "too few runs around the best rate"),
        ("spread(loss, single) < 1", "at the learning rate 0.003"),
        ("best(loss, lora) < 1", "0.3162, is at the edge of the grid; add rates above it"),
        ("gap(loss, lora, single) < 1", "add rates above it"),
        ("spread(loss) < 1", "add rates above it"),
        ("spread(loss, lora) < 1", "add rates above it"),
    ],
)
def test_what_is_missing_is_said(text, said):
    runs = [
        curve("lora", 1.0),
        curve("full", 2e-4, rates=[1e-4, 1e-3]),
        curve("single", 3e-3, seeds=1, rates=[1e-3, 3e-3, 1e-2]),
    ]
    judged = verdict(text, *runs)
    assert (judged.verdict, judged.test) == ("underpowered", "not tested")
    assert said in judged.measured


def test_diverged_rates_do_not_move_the_minimum():
    runs = curve("lora", 2e-3)
    wild = [
        Observation(run.arms, run.method, run.curve, run.rate, run.seed, run.fields, dict.fromkeys(run.values, 50.0))
        if run.rate > 0.02
        else run
        for run in runs
    ]
    assert Evidence(wild, ["lora"]).number(BestRate(Selection("lora"))).value == pytest.approx(2e-3, rel=0.1)


RANKS = [curve("lora", 2e-3, lowest, lora__r=rank) for rank, lowest in ((1, 1.3), (4, 1.2), (16, 1.1), (64, 1.1))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("monotone(loss, lora.r)", "agrees"),
        ("falls(loss, lora.r)", "agrees"),
        ("rises(loss, lora.r)", "does not agree"),
        ("monotone(rouge_l, lora.r)", "agrees"),
        ("falls(rouge_l, lora.r)", "does not agree"),
        ("flat(loss, lora.r, 0.5)", "agrees"),
        ("flat(loss, lora.r, 0.05)", "does not agree"),
        ("flat(loss, lora.r, 0.2)", "underpowered"),
        ("span(loss, lora.r) < 0.3", "agrees"),
        ("best(loss, lora, lora.r == highest) < best(loss, lora, lora.r == lowest)", "agrees"),
        ("best(loss, lora, lora.r == 4) < best(loss, lora, lora.r == 1)", "agrees"),
        ("within(best_rate(lora, lora.r == lowest) / best_rate(lora, lora.r == highest), 0.5, 2)", "agrees"),
        ("within(sd(loss, lora), 0.0001, 0.1)", "agrees"),
    ],
)
def test_shape_over_ranks(text, expected):
    assert verdict(text, *RANKS).verdict == expected


ARMS = [curve("full", 2e-4, 1.0), curve("lora", 2e-3, 1.1), curve("prefix", 2e-2, 1.6), curve("ia3", 2e-2, 1.6)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first(loss) == full", "agrees"),
        ("first(loss) == lora", "does not agree"),
        ("first(loss) != prefix", "agrees"),
        ("first(loss) != full", "does not agree"),
        ("last(loss) == prefix", "underpowered"),
        ("last(loss) in [prefix, ia3]", "agrees"),
        ("last(rouge_l) in [prefix, ia3]", "agrees"),
        ("last(loss) in [full, lora]", "does not agree"),
        ("gap(loss, lora, full) > 0", "agrees"),
        ("gap(rouge_l, lora, full) > 0", "agrees"),
        ("spread(loss) < spread(loss, lora)", "agrees"),
        ("spread(loss) > 2", "does not agree"),
    ],
)
def test_shape_over_arms(text, expected):
    assert verdict(text, *ARMS).verdict == expected


def test_gap_along_an_axis():
    growing = [
        curve(arm, best, 1.0 + extra * size, data__rows=size)
        for arm, best, extra in (("lora", 2e-3, 0.1), ("full", 2e-4, 0.0))
        for size in (1, 2, 3)
    ]
    assert verdict("rises(gap(loss, lora, full), data.rows)", *growing).verdict == "agrees"
    assert verdict("falls(gap(loss, lora, full), data.rows)", *growing).verdict == "does not agree"


def test_arm_without_runs_is_missed_when_arms_are_ranked():
    judged = verdict("first(loss) == full", *ARMS, arms=["full", "lora", "dora"])
    assert judged.verdict == "underpowered"
    assert "no finished run of dora" in judged.measured


def test_shape_needs_all_rules_and_fails_by_one():
    agrees, fails, open_ = (Judged("", each, "", "") for each in ("agrees", "does not agree", "underpowered"))
    assert verdict_of([agrees, agrees]) == "agrees"
    assert verdict_of([agrees, open_]) == "underpowered"
    assert verdict_of([agrees, open_, fails]) == "does not agree"


def test_interval_of_a_best_rate_covers_the_truth():
    rng, inside, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        runs = curve("lora", 2e-3, noise=0.02, seeds=2, rng=rng)
        draws = Evidence(runs, ["lora"]).number(BestRate(Selection("lora"))).draws
        low, high = np.quantile(draws, [0.025, 0.975])
        inside += low <= 2e-3 <= high
    assert inside / trials >= 0.9


def test_equal_arms_are_seldom_told_apart():
    rng, wrong, trials = np.random.default_rng(1), 0, 200
    for _ in range(trials):
        arms = [curve(arm, 2e-3, noise=0.02, rng=rng, rates=[2e-3]) for arm in ("lora", "ia3")]
        wrong += verdict("best(loss, lora) < best(loss, ia3)", *arms).verdict != "underpowered"
    assert wrong / trials <= 0.08
