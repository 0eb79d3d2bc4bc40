"""Bits of the rows against bits of the adapter."""

import pytest

from harness.estimate.capacity import MEASURED, OFTEN, Demand, Room, bits_per_number, smallest_rank


@pytest.mark.parametrize(("wanted", "rank"), [(0.1, 1), (1, 1), (1.01, 2), (8, 8), (8.01, 16), (4096, 4096)])
def test_the_rank_is_the_smallest_power_of_two_that_holds_the_bits(wanted, rank):
    assert smallest_rank(wanted) == rank


def test_a_rank_beyond_all_is_none():
    assert smallest_rank(4097) is None


def test_share_and_bits_per_token():
    demand = Demand(bits=1000.0, tokens=250, rows=10)
    assert demand.per_token == 4
    room = Room(demand, trained=250, passes=3, rank=None, rank_at_passes=None)
    assert room.bits == 250 * bits_per_number(OFTEN)
    assert room.share == room.bits / 1000


@pytest.mark.parametrize("passes", MEASURED)
def test_a_number_holds_what_was_measured(passes):
    assert bits_per_number(passes) == pytest.approx(MEASURED[passes])


def test_a_number_holds_more_of_what_it_sees_more_often_up_to_the_last_measurement():
    seen = [bits_per_number(passes) for passes in (0.5, 1, 3, 7, 20, 40, 70, 150, 200)]
    assert seen == sorted(set(seen))
    assert bits_per_number(10_000) == bits_per_number(OFTEN)
    assert bits_per_number(1) == pytest.approx(MEASURED[min(MEASURED)] / min(MEASURED))
