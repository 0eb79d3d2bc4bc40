"""The cache holds what transformers' own would, through growth, refilled rows and dropped columns."""

import torch

from harness.scoring.kv_cache import SlotCache, SlotLayer, prefix_cache


def states(rows: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn((2, rows, 3, columns, 4), generator=torch.Generator().manual_seed(seed))
    return drawn[0], drawn[1]


def test_appending_is_concatenation_however_often_the_buffer_grows():
    layer, parts = SlotLayer(), [states(2, columns, seed) for seed, columns in enumerate((7, 1, 60, 1, 200, 1))]
    for count, part in enumerate(parts, 1):
        found = layer.update(*part)
        for which in (0, 1):
            assert torch.equal(found[which], torch.cat([each[which] for each in parts[:count]], dim=-2))
        assert layer.get_seq_length() == found[0].shape[-2]
    assert torch.equal(layer.keys, found[0])


def test_a_new_text_replaces_the_last_columns_of_its_row():
    cache, other = SlotCache(), SlotCache()
    cache.update(*states(3, 9), 0)
    before = cache.layers[0].keys.clone()
    new_keys, new_values = states(1, 4, seed=5)
    other.update(new_keys, new_values, 0)
    cache.put_rows([1], other)
    keys, values = cache.layers[0].keys, cache.layers[0].values
    assert torch.equal(keys[[0, 2]], before[[0, 2]])
    assert torch.equal(keys[1, :, 5:], new_keys[0])
    assert torch.equal(values[1, :, 5:], new_values[0])


def test_rows_are_kept_and_columns_dropped():
    cache = SlotCache()
    keys, _ = states(4, 9)
    cache.update(*states(4, 9), 0)
    cache.keep_rows([3, 1])
    cache.drop_columns(2)
    assert cache.used == 7
    assert torch.equal(cache.layers[0].keys, keys[[3, 1], :, 2:])


def test_a_prefix_stands_before_every_row_and_keeps_nothing_of_them():
    read = SlotCache()
    keys, values = states(1, 5)
    read.update(keys, values, 0)
    prefix, (more_keys, more_values) = prefix_cache(read), states(3, 2, seed=1)
    for _ in range(2):
        found = prefix.update(more_keys, more_values, 0)
        assert torch.equal(found[0], torch.cat([keys.expand(3, -1, -1, -1), more_keys], dim=-2))
        assert torch.equal(found[1], torch.cat([values.expand(3, -1, -1, -1), more_values], dim=-2))
        assert prefix.get_seq_length() == 5
    assert torch.equal(read.repeated(3).layers[0].keys, keys.expand(3, -1, -1, -1))
