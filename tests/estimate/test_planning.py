"""What fits: straight lines over rows, devices under DDP and FSDP, operations at the mean length."""

import pytest

from harness.estimate.footprint import Batch, Footprint
from harness.estimate.lengths import Lengths
from harness.estimate.planning import at_length, devices_of_ddp, devices_of_fsdp, largest_batch

GIB = 1 << 30


def held(weights=4, adapter=1, optimizer=2, during=8, gradients=1, cache=0) -> Footprint:
    return Footprint(
        weights=weights * GIB,
        adapter=adapter * GIB,
        gradients=gradients * GIB,
        optimizer=optimizer * GIB,
        activations=during * GIB,
        logits=0,
        during=during * GIB,
        cache=cache * GIB,
        forward_flops=1.0,
        attention_flops=0.0,
        flops=3.0,
    )


def test_the_peak_is_in_training_or_in_scoring():
    assert held().peak == 15 * GIB
    assert held(cache=20).peak == 25 * GIB


@pytest.mark.parametrize(("usable", "rows"), [(15, 8), (23, 16), (7, 0), (8, 1)])
def test_the_largest_batch_lies_on_the_line_through_two(usable, rows):
    assert largest_batch(held(), 8, held(during=4), 4, usable * GIB) == rows


def test_what_fits_one_device_needs_one():
    assert devices_of_ddp(held(), 16 * GIB) == 1
    assert devices_of_fsdp(held(), 16 * GIB, blocks=10) == 1


def test_ddp_cannot_share_what_one_device_cannot_hold():
    assert devices_of_ddp(held(), 12 * GIB) is None


def test_fsdp_shares_weights_gradients_and_states_but_no_activations():
    # 8 GiB are shared, 8 of activations and 2 of 5 of 10 blocks are whole.
    assert devices_of_fsdp(held(), 11 * GIB, blocks=10) == 4
    assert devices_of_fsdp(held(), 9 * GIB, blocks=10) is None


def test_operations_at_the_mean_length_rise_with_tokens_and_attention_with_their_square():
    lengths = Lengths(10, 5, mean=50.0, labels=10.0, longest=100, most_labels=20)
    assert at_length(100.0, 20.0, Batch(2, 100, 20), lengths) == 80 / 2 + 20 / 4


def test_another_longest_row_shortens_the_others():
    lengths = Lengths(10, 5, mean=50.0, labels=10.0, longest=100, most_labels=20).of_at_most(8)
    assert (lengths.mean, lengths.labels, lengths.longest, lengths.most_labels) == (8, 7, 8, 7)
