"""Successive halving as a rule: rungs, who goes on, and what follows from losses alone."""

import random

import pytest

from harness.sweep.halving import Entrant, Rule, stand

HALF = Rule(keep=0.5, first=0.125, margin=0.0)


def entrants(**losses: tuple[float, ...]) -> list[Entrant]:
    """One run for each configuration, of eight evaluations."""
    return [Entrant(name, name, 8, values, ended=len(values) == 8) for name, values in losses.items()]


@pytest.mark.parametrize(
    ("rule", "evaluations", "rungs"),
    [
        (HALF, 8, (1, 2, 4)),
        (HALF, 16, (2, 4, 8)),
        (HALF, 4, (1, 2)),  # two shares in one evaluation are one rung
        (HALF, 2, (1,)),
        (HALF, 1, ()),
        (Rule(1 / 3, 1 / 9, 0.0), 9, (1, 3)),
        (Rule(0.5, 0.1, 0.0), 10, (1, 2, 4, 8)),
        (Rule(0.5, 0.9, 0.0), 4, ()),
    ],
)
def test_rungs_are_evaluations_before_the_last(rule, evaluations, rungs):
    assert rule.rungs(evaluations) == rungs


def test_the_best_share_goes_on_and_equal_losses_share_their_fate():
    assert HALF.survivors({"a": 1.0, "b": 2.0, "c": 3.0}) == ({"a", "b"}, 2.0)  # rounded up
    assert HALF.survivors({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})[0] == set("abcd")
    assert HALF.survivors({"a": 1.0, "b": 9.0}) == ({"a"}, 1.0)


def test_a_margin_keeps_what_is_close():
    close = Rule(0.5, 0.125, margin=0.1)
    assert close.survivors({"a": 1.0, "b": 1.1, "c": 1.2, "d": 3.0})[0] == {"a", "b", "c"}


def test_nobody_is_judged_before_all_have_reached_the_rung():
    standing = stand(entrants(a=(1.0,), b=(), c=(3.0,)), HALF)
    assert (standing.pruned, standing.due, standing.rung) == ({}, {"b": 1}, 0)


def test_a_race_goes_from_rung_to_rung():
    start = stand(entrants(a=(), b=(), c=(), d=()), HALF)
    assert start.due == dict.fromkeys("abcd", 1)
    first = stand(entrants(a=(4.0,), b=(3.0,), c=(2.0,), d=(1.0,)), HALF)
    assert set(first.pruned) == {"a", "b"}
    assert (first.due, first.rung) == ({"c": 2, "d": 2}, 1)
    verdict = first.pruned["b"]
    assert (verdict.rung, verdict.loss, verdict.limit, verdict.rank) == (0, 3.0, 2.0, 3)
    assert (verdict.compared, verdict.kept) == (4, 2)
    second = stand(entrants(a=(4.0,), b=(3.0,), c=(2.0, 0.5), d=(1.0, 0.9)), HALF)
    assert set(second.pruned) == {"a", "b", "d"}
    assert second.due == {"c": None}  # alone, it goes to its end
    done = stand(entrants(a=(4.0,), b=(3.0,), c=(2.0, 0.5, *[0.4] * 6), d=(1.0, 0.9)), HALF)
    assert done.due == {}


def test_a_single_configuration_is_never_pruned():
    assert stand(entrants(a=()), HALF).due == {"a": None}
    seeds = [Entrant(f"a{seed}", "a", 8, ()) for seed in range(3)]
    assert stand(seeds, HALF).due == dict.fromkeys(("a0", "a1", "a2"), None)


def test_seeds_of_a_configuration_stay_together_whatever_their_own_losses():
    """A seed that is lucky early on must not be the one that stays."""
    runs = [
        Entrant("a0", "a", 8, (0.1,)),
        Entrant("a1", "a", 8, (9.0,)),
        Entrant("b0", "b", 8, (2.0,)),
        Entrant("b1", "b", 8, (2.0,)),
    ]
    standing = stand(runs, HALF)
    assert set(standing.pruned) == {"a"}
    assert standing.due == {"b0": None, "b1": None}
    assert standing.pruned["a"].loss == pytest.approx(4.55)


def test_a_configuration_with_a_failed_run_is_not_compared():
    runs = [
        Entrant("a0", "a", 8, (0.1,)),
        Entrant("a1", "a", 8, (), failed=True),
        Entrant("b", "b", 8, (2.0,)),
        Entrant("c", "c", 8, (3.0,)),
    ]
    standing = stand(runs, HALF)
    assert set(standing.pruned) == {"a", "c"}
    assert (standing.pruned["a"].loss, standing.pruned["a"].rank) == (None, None)
    assert standing.due == {"b": None}


def test_a_later_failure_brings_back_the_next_one():
    runs = entrants(a=(1.0,), b=(2.0,), c=(3.0,), d=(4.0,))
    assert set(stand(runs, HALF).pruned) == {"c", "d"}
    runs[0] = Entrant("a", "a", 8, (1.0,), failed=True)
    assert stand(runs, HALF).due == {"b": 2, "c": 2}


def test_finished_runs_take_part_and_need_no_more_training():
    standing = stand(entrants(a=tuple(float(9 - step) for step in range(8)), b=(1.0,), c=(2.0,)), HALF)
    assert set(standing.pruned) == {"a"}  # whoever reads the verdict leaves a finished run finished
    assert standing.due == {"b": 2, "c": 2}


def test_a_run_of_fewer_steps_than_evaluations_counts_by_what_it_has():
    short = [Entrant("a", "a", 8, (2.0, 1.0), ended=True), Entrant("b", "b", 8, (3.0, 2.5), ended=True)]
    standing = stand(short, HALF)
    assert standing.due == {}
    assert set(standing.pruned) == {"b"}


def test_the_verdicts_do_not_depend_on_the_order_of_arrival():
    generator = random.Random(0)
    for _ in range(50):
        curves = {f"c{i}": [generator.random() for _ in range(8)] for i in range(generator.randint(2, 12))}
        reached = dict.fromkeys(curves, 0)
        while True:
            runs = [Entrant(name, name, 8, tuple(curves[name][:n]), ended=n == 8) for name, n in reached.items()]
            generator.shuffle(runs)
            standing = stand(runs, HALF)
            if not standing.due:
                break
            name = generator.choice(list(standing.due))  # one at a time, in any order
            reached[name] = standing.due[name] or 8
        together = dict.fromkeys(curves, 0)
        while due := stand(
            [Entrant(n, n, 8, tuple(curves[n][:k]), ended=k == 8) for n, k in together.items()], HALF
        ).due:
            together |= {name: goal or 8 for name, goal in due.items()}
        assert reached == together
