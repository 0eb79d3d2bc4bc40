"""Simulated comparisons with known variances: coverage, false alarms, power. ``scripts/docs/simulation_table.py``."""

import importlib
import sys

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

SEEDS = (3, 5, 10)
WORLDS = 7


@pytest.fixture(scope="module")
def simulation():
    folder = str(ROOT / "scripts" / "docs")
    sys.path.insert(0, folder)
    yield importlib.import_module("simulation_table")
    sys.path.remove(folder)
    for name in ("simulation_table", "sections"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "not paired"])
@pytest.mark.parametrize("world", range(WORLDS))
def test_intervals_hold_the_truth_and_equal_methods_are_not_told_apart(simulation, world, paired, n):
    found = simulation.measure(simulation.WORLDS[world], n, paired)
    assert 0.93 <= found.covered <= 0.97
    assert found.false_alarms <= 0.065


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("world", range(WORLDS))
def test_power_is_what_was_predicted(simulation, world, n):
    found = simulation.measure(simulation.WORLDS[world], n, True)
    if found.predicted is None:
        pytest.skip("right or wrong answers: the true variances are not known")
    assert found.power == pytest.approx(found.predicted, abs=0.06)


@pytest.mark.parametrize("n", SEEDS)
def test_reports_seldom_claim_a_false_order_or_lose_the_best(simulation, n):
    found = simulation.families(n)
    assert found.orders <= 0.065
    assert found.lost <= 0.065


def test_a_bootstrap_over_three_seeds_does_not_cover(simulation):
    assert simulation.bootstrap_coverage(3) < 0.8


def test_every_world_is_tested(simulation):
    assert (len(simulation.WORLDS), simulation.SEEDS) == (WORLDS, SEEDS)
    assert simulation.COMPARISONS > 1000


def test_the_page_has_the_figures_that_were_measured(simulation):
    page = (ROOT / simulation.PAGE).read_text(encoding="utf-8")
    for name in ("table", "bootstraps", "reports"):
        lines = "\n".join(getattr(simulation, name)())
        assert lines in page, f"run python scripts/docs/simulation_table.py\n{lines}"
