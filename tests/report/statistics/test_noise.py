"""The A/A floor: what two means of seeds of one plan differ by."""

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics.noise import floor_between, half_width, noise_floors, one_run_a_seed, pooled
from tests.support.scores import a_run, runs_of


def test_the_floor_of_one_configuration_is_the_t_quantile_of_two_means():
    runs = runs_of("lora r=8", [70.0, 72.0, 75.0])
    floor = noise_floors(runs, n=3)["g", "lora", "rouge_l"]
    sd = np.std([70, 72, 75], ddof=1)
    assert floor.sd == pytest.approx(sd)
    assert (floor.df, floor.n, floor.configurations, floor.source) == (2, 3, 1, "seeds")
    assert floor.half_width == pytest.approx(stats.t.ppf(0.975, 2) * sd * np.sqrt(2 / 3))


def test_the_floor_holds_95_percent_of_the_differences_of_new_means():
    rng = np.random.default_rng(3)
    spreads = rng.normal(0, 2, (20_000, 3)).std(axis=1, ddof=1)
    differences = rng.normal(0, 2, (20_000, 3)).mean(axis=1) - rng.normal(0, 2, (20_000, 3)).mean(axis=1)
    inside = np.abs(differences) <= half_width(1.0, 2, 3, 3) * spreads
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


def test_spreads_of_a_methods_configurations_are_pooled():
    """As the error of a one-way analysis of variance."""
    groups = [[70.0, 72.0, 75.0], [60.0, 61.0], [80.0]]
    sd, df, count = pooled(groups)
    within = sum(np.var(group, ddof=1) * (len(group) - 1) for group in groups if len(group) > 1)
    assert (sd, df, count) == (pytest.approx(np.sqrt(within / 3)), 3, 2)
    runs = [run for number, values in enumerate(groups) for run in runs_of(f"lora r={number}", values)]
    floor = noise_floors(runs, n=2)["g", "lora", "rouge_l"]
    assert (floor.sd, floor.df, floor.configurations) == (pytest.approx(sd), 3, 2)


def test_methods_groups_and_scores_have_their_own_floors():
    runs = runs_of("lora", [1.0, 2.0]) + runs_of("ia3", [1.0, 5.0]) + runs_of("lora", [1.0, 9.0], group="h")
    assert set(noise_floors(runs, n=2)) == {("g", "lora", "rouge_l"), ("g", "ia3", "rouge_l"), ("h", "lora", "rouge_l")}


def test_changed_numerics_give_a_floor_and_are_no_replicates():
    runs = [a_run("lora", 0, 70.0, numerics="cpu"), a_run("lora", 0, 90.0, numerics="gpu")]
    runs += [a_run("lora", 1, 71.0, numerics="cpu")]
    floor = noise_floors(runs, n=3)["g", "lora", "rouge_l"]
    assert floor.sd == pytest.approx(np.std([70, 71], ddof=1))
    assert floor.numerics_sd == pytest.approx(np.std([70, 90], ddof=1))
    assert floor.source == "numerics"
    assert floor.half_width == pytest.approx(stats.t.ppf(0.975, 1) * np.std([70, 90], ddof=1) * np.sqrt(2 / 3))
    assert [(run.seed, run.numerics) for run in one_run_a_seed(runs)] == [(0, "cpu"), (1, "cpu")]


def test_single_seeds_have_no_floor():
    assert noise_floors(runs_of("lora", [70.0]), n=3) == {}


def test_a_comparison_has_the_floor_of_its_noisier_method():
    runs = runs_of("lora", [70.0, 72.0, 75.0]) + runs_of("ia3", [30.0, 30.1, 30.2])
    floors = noise_floors(runs, n=3)
    both = [floors["g", "lora", "rouge_l"], floors["g", "ia3", "rouge_l"]]
    assert floor_between(both, 3, 3) == pytest.approx(both[0].half_width)
    assert floor_between([None, both[1]], 3, 3) == pytest.approx(both[1].half_width)
    assert floor_between([None, None], 3, 3) is None
    assert floor_between(both, 3, 5) == pytest.approx(both[0].half_width * np.sqrt((1 / 3 + 1 / 5) / (2 / 3)))
