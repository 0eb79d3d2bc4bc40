"""The order of training rows: shuffled by seed and epoch alone, with neighbors of similar length."""

from harness.data.sampler import LengthSampler


def test_each_epoch_has_every_row_once_in_an_order_of_seed_and_epoch_alone():
    lengths = [(7 * number) % 13 + 1 for number in range(50)]

    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthSampler(lengths, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    for seed in (0, 1):
        for epoch in range(3):
            assert sorted(order(seed, epoch)) == list(range(50))
            assert order(seed, epoch) == order(seed, epoch)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in range(3)}) == 6


def test_rows_of_a_batch_have_similar_lengths():
    lengths = [(7 * number) % 64 + 1 for number in range(64)]
    order = list(LengthSampler(lengths, 8, 0))
    spread = [max(batch) - min(batch) for batch in ([lengths[i] for i in order[at : at + 8]] for at in range(0, 64, 8))]
    assert max(spread) == 7


def test_rows_of_a_step_are_the_same_however_many_processes_share_it():
    lengths = [(7 * number) % 13 + 1 for number in range(26)]
    alone = list(LengthSampler(lengths, 8, 0))
    shared = list(LengthSampler(lengths, 8, 0, together=4))
    assert shared == [*alone, -1, -1]  # a multiple of four: each of two processes takes two at once
    assert len(LengthSampler(lengths, 8, 0, together=4)) == 28
