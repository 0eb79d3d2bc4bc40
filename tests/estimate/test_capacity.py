"""Bits of the rows against bits of the adapter."""

import pytest

from harness.estimate.capacity import Demand, Room, smallest_rank


@pytest.mark.parametrize(("bits", "rank"), [(1, 1), (200, 1), (201, 2), (1600, 8), (1601, 16)])
def test_the_rank_is_the_smallest_power_of_two_that_holds_the_bits(bits, rank):
    assert smallest_rank(bits, lambda r: 100 * r) == rank


def test_a_rank_beyond_all_is_none():
    assert smallest_rank(1e9, lambda r: 100 * r) is None


def test_share_and_bits_per_token():
    demand = Demand(bits=1000.0, tokens=250)
    assert demand.per_token == 4
    assert Room(demand, trained=250, bound_below=None).share == 0.5
