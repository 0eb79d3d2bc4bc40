"""Each run of a pack has its own random state, and whatever else a process has only once."""

import random

import numpy
import torch
from accelerate.state import GradientState

from harness.runtime import signals
from harness.training.packed.ambient import Ambient


def numbers() -> tuple[float, float, float]:
    return random.random(), float(numpy.random.rand()), float(torch.rand(()))


def seed(value: int) -> None:
    random.seed(value)
    numpy.random.seed(value)
    torch.manual_seed(value)


def test_two_runs_in_turn_draw_what_each_draws_alone():
    expected = []
    for value in (1, 2):
        seed(value)
        expected.append([numbers() for _ in range(3)])
    runs = []
    for value in (1, 2):
        seed(value)
        runs.append(Ambient())
    drawn = [[], []]
    for _ in range(3):
        for number, run in enumerate(runs):
            run.enter()
            drawn[number].append(numbers())
            run.leave()
    assert drawn == expected


def test_what_a_generator_has_drawn_the_run_has_drawn():
    seed(3)
    run = Ambient()
    generator = run.generator(torch.device("cpu"))
    torch.rand(5, generator=generator)
    run.advance(generator)
    run.enter()
    now = torch.rand(())
    seed(3)
    torch.rand(5)
    assert torch.equal(now, torch.rand(()))


def test_accumulation_and_deferred_signals_are_each_runs_own():
    state = GradientState()
    first, second = Ambient(), Ambient()
    first.enter()
    state._set_sync_gradients(False)
    signals.exchange_deferral(True)
    first.leave()
    second.enter()
    state._set_sync_gradients(True)
    second.leave()
    first.enter()
    assert state.sync_gradients is False
    assert signals.exchange_deferral(False) is True
    state._set_sync_gradients(True)
