"""Optuna's pruner within a method: trials are compared with those before them."""

import pytest

from harness.config.schema import Halving
from harness.errors import ConfigFault
from harness.sweep.halving import Entrant, Rule
from harness.sweep.study_pruning import check_rule, stand_in_study

HALF = Rule(keep=0.5, first=0.125, margin=0.0)


def run(name: str, *losses: float, ended: bool = False) -> Entrant:
    return Entrant(name, name, 8, losses, ended)


def test_the_first_trial_goes_to_its_end():
    assert stand_in_study([], [run("a")], HALF).due == {"a": 1}
    assert stand_in_study([], [run("a", 5.0)], HALF).due == {"a": 2}
    assert stand_in_study([], [run("a", 5.0, 5.0, 5.0, 5.0)], HALF).due == {"a": None}
    assert stand_in_study([], [run("a", *[5.0] * 8, ended=True)], HALF).due == {}


def test_a_trial_goes_on_if_it_is_among_the_best_share_so_far():
    past = [run("a", *[5.0] * 8, ended=True), run("b", 3.0, *[3.0] * 7, ended=True)]
    assert stand_in_study(past, [run("c", 2.0)], HALF).due == {"c": 2}
    standing = stand_in_study(past, [run("c", 4.0)], HALF)
    assert standing.due == {}
    verdict = standing.pruned["c"]
    assert (verdict.rung, verdict.loss, verdict.limit, verdict.rank) == (0, 4.0, 3.0, 2)
    assert (verdict.compared, verdict.kept) == (3, 1)


def test_trials_of_one_batch_are_compared_in_their_order():
    standing = stand_in_study([], [run("a", 2.0), run("b", 3.0), run("c", 1.0)], HALF)
    assert set(standing.pruned) == {"b"}
    assert standing.due == {"a": 2, "c": 2}


def test_answers_are_the_same_each_time():
    past = [run(str(number), float(number % 5), 1.0) for number in range(9)]
    first = stand_in_study(past, [run("x", 1.5), run("y", 4.5)], HALF)
    assert first == stand_in_study(past, [run("x", 1.5), run("y", 4.5)], HALF)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 0.4}, "sweep.halving.keep=0.4: Optuna keeps one half, one third"),
        ({"margin": 0.1}, "sweep.halving.margin=0.1 is for grids"),
    ],
)
def test_a_rule_that_optuna_lacks_is_refused(changes, message):
    usual = {"keep": 0.333, "first": 0.1, "margin": None}
    with pytest.raises(ConfigFault, match=message):
        check_rule(Halving(**{**usual, **changes}))
    check_rule(Halving(**usual))
    check_rule(Halving(**{**usual, "margin": 0.0}))
