"""Findings in words."""

from dataclasses import replace

import numpy as np
import pytest

from harness.report.statistics import words
from harness.report.statistics.comparisons import compare_with
from harness.report.statistics.intervals import mean_interval
from harness.report.statistics.model import Comparison, Components, Interval, Needed, NoiseFloor
from harness.report.statistics.noise import noise_floors
from harness.report.statistics.power import needed
from tests.support.scores import a_run, crossed, runs_of, with_rows

APART = Comparison(
    reference="a",
    other="b",
    difference=-47.94,
    interval=Interval(-47.94, -54.1, -41.8, 3, "t over crossed seeds and rows", "seeds and rows"),
    p=1e-5,
    p_holm=2e-5,
    verdict="worse",
    metric="rouge_l",
    reference_name="lora r=8",
    other_name="ia3",
    reference_seeds=(0, 1, 2),
    other_seeds=(0, 1, 2),
    paired=True,
    rows=216,
    floor=4.1,
)
CLOSE = replace(
    APART,
    difference=1.84,
    interval=Interval(1.84, -2.1, 5.78, 3, "t over crossed seeds and rows", "seeds and rows"),
    p=0.2,
    p_holm=0.4,
    verdict="undecided",
    other_name="lora r=16",
    components=Components(1.0, 400.0, 100.0),
)


def plan(**more):
    usual = {"effect": 2.0, "alpha": 0.05, "power": 0.8, "power_now": 0.1, "visible": 9.0, "seeds": 9, "rows": 1200}
    return Needed(**(usual | {"rows_known": True, "fewest_seeds": 2} | more))


def text(comparison, effect=None):
    return words.finding_of(comparison, effect).text


def test_an_order_names_size_interval_p_value_rows_and_seeds():
    found = words.finding_of(APART, 1.0)
    assert found.text == (
        "ia3 is worse than lora r=8 on 216 rows and 3 seeds: rouge_l lower by 47.9 points "
        "(95 % interval -54.1 to -41.8, corrected p < 0.001)."
    )
    assert (found.kind, found.keys, found.metric) == ("difference", ("a", "b"), "rouge_l")


def test_an_order_of_little_size_says_that_it_does_not_matter():
    small = replace(APART, difference=0.44, verdict="better", interval=replace(APART.interval, low=0.3, high=0.6))
    assert text(small, 1.0).startswith("ia3 is better than lora r=8")
    assert text(small, 1.0).endswith("That is less than the 1 point that matter.")


def test_what_cannot_be_told_apart_names_rows_and_seeds_and_what_it_takes():
    assert text(replace(CLOSE, needed=plan()), 2.0) == (
        "lora r=8 and r=16 cannot be told apart on 216 rows and 3 seeds: rouge_l of r=16 is higher by 1.8 points "
        "(95 % interval -2.1 to +5.8, corrected p = 0.4). To see a difference of 2 points with a probability of 80 % "
        "takes 9 seeds of each on these 216 rows or 1,200 rows with 3 seeds of each."
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"rows": None},
            "To see a difference of 2 points with a probability of 80 % takes 9 seeds of each on these 216 rows; "
            "no number of rows suffices with 3 seeds.",
        ),
        (
            {"rows": None, "seeds": None, "fewest_seeds": 14},
            "To see a difference of 2 points: no number of rows suffices with 3 seeds, and no number of seeds (up to "
            "1,000) suffices on these 216 rows; with more rows at least 14 seeds of each are needed.",
        ),
        (
            {"seeds": None},
            "To see a difference of 2 points with a probability of 80 % takes 1,200 rows with 3 seeds of each; "
            "no number of seeds (up to 1,000) suffices on these 216 rows; with more rows at least 2 seeds of each are "
            "needed.",
        ),
        ({"power_now": 0.93}, "A difference of 2 points would have been seen with a probability of 93 %."),
        (
            {"rows": None, "rows_known": False, "fewest_seeds": None},
            "To see a difference of 2 points with a probability of 80 % takes 9 seeds of each on these 216 rows.",
        ),
    ],
)
def test_what_it_takes_in_words(more, expected):
    assert words.needed_in_words(plan(**more), CLOSE) == expected


def test_a_difference_inside_noise_names_the_floor():
    found = text(replace(CLOSE, verdict="inside noise"))
    assert "cannot be told apart" in found
    assert "the difference in rouge_l, 1.8 points, lies inside the A/A noise of ±4.1 points" in found


def test_equivalence_names_the_minimum_effect():
    assert text(replace(CLOSE, verdict="equivalent"), 6.0).startswith(
        "lora r=8 and r=16 differ by less than 6 points of rouge_l on 216 rows and 3 seeds ("
    )


def test_one_seed_is_said_and_what_to_run():
    single = replace(CLOSE, verdict="too few seeds", p=None, p_holm=None, interval=Interval(1.84, None, None, 1, "one"))
    assert text(single) == (
        "lora r=8 and r=16: no order is claimed, because one seed says nothing about other seeds "
        "(rouge_l of r=16 is 1.8 points higher); run seed=0,1,2 or more of each."
    )


def test_seeds_that_differ_in_number_are_both_named():
    assert "on 3 and 5 seeds" in text(replace(CLOSE, rows=None, other_seeds=(0, 1, 2, 3, 4)))


def test_no_variance_is_said():
    assert "nothing is known about its variance" in text(replace(CLOSE, p=None, p_holm=None))


def test_losses_are_in_nats_and_an_unknown_score_has_no_unit():
    loss = replace(CLOSE, metric="loss", difference=-0.0123, interval=Interval(-0.0123, -0.03, 0.0054, 3, "t"))
    assert "loss of r=16 is lower by 0.012 nats per token (95 % interval -0.030 to +0.005," in text(loss)
    assert "accuracy of r=16 is higher by 1.8 (95 %" in text(replace(CLOSE, metric="accuracy"))


def test_many_comparisons_of_one_verdict_share_a_sentence():
    many = [replace(APART, other=f"k{k}", other_name=f"m{k}", difference=-10.0 - k) for k in range(7)]
    [found] = words.findings_of(many, 1.0)
    assert found.text == (
        "7 configurations are worse than lora r=8, by 10.0 to 16.0 points of rouge_l on 216 rows and 3 seeds "
        "(each corrected p < 0.001): m6, m5, m4, m3, m2, m1 and m0."
    )
    assert found.keys == ("a", *(f"k{k}" for k in range(7)))
    close = [replace(CLOSE, other_name=f"m{k}", needed=plan(seeds=9 + k)) for k in range(7)]
    [found] = words.findings_of(close, 2.0)
    assert found.text.startswith("7 configurations cannot be told apart from lora r=8 on 216 rows and 3 seeds")
    assert found.text.endswith("To see a difference of 2 points takes 9 to 15 seeds of each on these rows.")


def test_few_comparisons_have_a_sentence_each_orders_first():
    found = words.findings_of([CLOSE, APART], 1.0)
    assert [each.kind for each in found] == ["difference", "no difference"]


@pytest.fixture
def five():
    rng = np.random.default_rng(5)
    runs = []
    for name, mean in (("lora", 80.0), ("full", 80.5), ("ia3", 30.0), ("bitfit", 20.0)):
        runs += with_rows(name, crossed(rng, (5, 100), mean=mean, seed=1, row=5, rest=10))
    return runs


def best(runs, key):
    found = compare_with(key, runs, chosen_by_score=True)
    mean = mean_interval([run for run in runs if run.configuration == key])
    return words.best_finding(found, key, mean, lower_is_better=False)


def test_the_best_is_named_with_those_that_may_be_the_best(five):
    found = best(five, "full")
    assert found.text.startswith("Highest rouge_l: full, ")
    assert found.text.endswith("With 95 % confidence the best is full or lora; 2 others are not.")
    assert set(found.keys) == {"full", "lora"}


def test_the_best_beats_all_or_none_or_has_one_seed(five):
    without = [run for run in five if run.configuration != "lora"]
    assert best(without, "full").text.endswith("It is better than each of the other 2.")
    two = [run for run in five if run.configuration in ("lora", "full")]
    assert best(two, "full").text.endswith("It is better than the other one.")
    close = runs_of("lora", [70.0, 75.0, 80.0]) + runs_of("full", [70.0, 77.0, 79.0])
    assert best(close, "full").text.endswith("lora cannot be told apart.")
    closer = close + runs_of("oft", [69.0, 75.0, 79.0])
    assert best(closer, "full").text.endswith("No other can be told apart from it.")
    single = [a_run("lora", 0, 80.0), a_run("full", 0, 81.0)]
    assert "full, 81.0 (one seed). No order is claimed" in best(single, "full").text
    mixed = [*without, a_run("oft", 0, 99.0)]
    assert best(mixed, "full").text.endswith("oft has one seed, which is too few to judge.")


def test_noise_names_the_methods_the_noisiest_first():
    runs = runs_of("lora", [70.0, 72.0, 75.0]) + runs_of("ia3", [30.0, 30.1, 30.2])
    found = words.noise_finding(noise_floors(runs, n=3).values())
    assert found.text.startswith(
        "A/A noise of rouge_l: 95 % of the differences between two means of 3 seeds of one plan"
    )
    assert "lie within lora ±8.8 and ia3 ±0.35 points" in found.text
    assert words.noise_finding([]) is None


def test_noise_from_changed_numerics_says_so():
    floor = NoiseFloor("lora", "g", "loss", 3, 0.01, 2, 0.05, 1, 0.02, 1, "numerics")
    assert "lora ±0.050 (under changed numerics)" in words.noise_finding([floor]).text


def test_missing_rows_are_a_caution_naming_the_configurations(five):
    runs = [*five, *runs_of("oft", [50.0, 51.0, 52.0, 50.5, 51.5])]
    found = words.caution_on_rows(compare_with("lora", runs), runs)
    assert "values per row are missing, or of other rows, in runs of oft or lora" in found.text
    assert found.keys == ("oft",)
    assert words.caution_on_rows(compare_with("lora", five), five) is None
    only = runs_of("lora", [1.0, 2.0]) + runs_of("oft", [50.0, 51.0])
    assert words.caution_on_rows(compare_with("lora", only), only) is None


def test_the_minimum_effect_is_as_stated_or_by_the_unit_of_the_score():
    assert words.minimum_effect_of("rouge_l", None) == 1.0
    assert words.minimum_effect_of("loss", None) == 0.01
    assert words.minimum_effect_of("loss", 0.5) == 0.5
    assert words.minimum_effect_of("an old score", None) is None


def test_the_words_fit_what_power_computes():
    components = Components(seed=9.0, row=400.0, residual=0.0)
    found = words.needed_in_words(needed(components, 2.0, 3, 216, 0.05, paired=True), CLOSE)
    assert "no number of rows suffices with 3 seeds" in found
