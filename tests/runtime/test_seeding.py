"""One seed, one stream of every generator."""

import os
import random
from unittest import mock

import numpy
import pytest
import torch

from harness.runtime.seeding import seed_everything


@pytest.fixture(autouse=True)
def as_before():
    """The random state and the algorithms of the other tests."""
    with torch.random.fork_rng(devices=[]), mock.patch.dict(os.environ):
        yield
    torch.use_deterministic_algorithms(False)


def draw():
    return torch.rand(3).tolist(), numpy.random.rand(3).tolist(), random.random()


def test_every_generator_follows_the_seed():
    seed_everything(3, deterministic=False)
    first = draw()
    seed_everything(3, deterministic=False)
    assert draw() == first
    seed_everything(4, deterministic=False)
    assert draw() != first


def test_a_later_run_does_not_inherit_deterministic_algorithms():
    seed_everything(3, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(3, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
