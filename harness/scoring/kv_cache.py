"""Keys and values of the text read so far, kept so that nothing old is copied when tokens are added.

transformers' own cache concatenates: each step copies all keys and values of all layers, which was 42 % of a step of
the embedded model and 16 % of one of SmolLM2-135M (32 rows of 60 to 70 tokens on a CPU).
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 32  # columns that are added at least when a buffer is full
GROWTH = 4  # and at least this fraction of it: 1/4


class SlotLayer(DynamicLayer):
    """One layer's keys and values in buffers (rows, heads, columns, size), of which the first columns are used."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.used = 0
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; return all that are used."""
        end = self.used + key_states.shape[-2]
        if not self._buffers:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._buffers = [_room_like(states, end + ROOM) for states in (key_states, value_states)]
        elif end > self._buffers[0].shape[-2]:
            self._grow(end)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.used : end] = states
        self.used = end
        return self.columns()

    def get_seq_length(self) -> int:
        return self.used

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order."""
        self._buffers = [buffer.index_select(0, rows) for buffer in self._buffers]
        self.columns()

    def drop_columns(self, count: int) -> None:
        """Forget the first columns."""
        for buffer in self._buffers:
            buffer[:, :, : self.used - count] = buffer[:, :, count : self.used].clone()
        self.used -= count
        self.columns()

    def put_rows(self, rows: torch.Tensor, other: "SlotLayer") -> None:
        """Replace the last columns of these rows by all those of ``other``'s rows."""
        for buffer, new in zip(self._buffers, other.columns(), strict=True):
            buffer[rows, :, self.used - other.used : self.used] = new

    def repeated(self, count: int) -> "SlotLayer":
        """Its single row so many times, as a new layer."""
        made = SlotLayer()
        made.update(*(view.expand(count, -1, -1, -1) for view in self.columns()))
        return made

    def _grow(self, columns: int) -> None:
        size = max(columns, self._buffers[0].shape[-2]) + max(ROOM, columns // GROWTH)
        for at, old in enumerate(self._buffers):  # one after another: only one of them is held twice
            new = _room_like(old, size)
            new[:, :, : self.used] = old[:, :, : self.used]
            self._buffers[at] = new

    def columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the columns that are used."""
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self._buffers)
        return self.keys, self.values


class SlotCache(Cache):
    """A cache whose rows are slots: a new text may take the place of one that has ended."""

    layers: list[Any]  # SlotLayer

    def __init__(self, layers: list[SlotLayer] | None = None) -> None:
        super().__init__(**({"layers": layers} if layers else {"layer_class_to_replicate": SlotLayer}))

    @property
    def used(self) -> int:
        """Columns that are used."""
        return int(self.layers[0].used)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows alone, in this order."""
        for layer in self.layers:
            layer.keep_rows(torch.tensor(rows, device=layer.device))

    def drop_columns(self, count: int) -> None:
        """Forget the first columns."""
        for layer in self.layers:
            layer.drop_columns(count)

    def put_rows(self, rows: Sequence[int], other: "SlotCache") -> None:
        """Replace the last columns of these rows by all those of ``other``'s rows, which must not be wider."""
        for mine, its in zip(self.layers, other.layers, strict=True):
            mine.put_rows(torch.tensor(rows, device=mine.device), its)

    def repeated(self, count: int) -> "SlotCache":
        """Its single row so many times, as a new cache."""
        return SlotCache([layer.repeated(count) for layer in self.layers])


class PrefixLayer(DynamicLayer):
    """Keys and values of a prefix that all rows of a pass share; those of the rows are used and not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix before the columns of each row."""
        shape = (len(key_states), -1, -1, -1)
        prefix: tuple[Any, Any] = self.keys, self.values
        keys, values = (
            torch.cat([mine.expand(shape), its], dim=-2)
            for mine, its in zip(prefix, (key_states, value_states), strict=True)
        )
        return keys, values


def prefix_cache(read: SlotCache) -> Cache:
    """The single row that ``read`` holds as the prefix of every row of the passes that follow."""
    return Cache(layers=[PrefixLayer(*layer.columns()) for layer in read.layers])


def _room_like(states: torch.Tensor, columns: int) -> torch.Tensor:
    return states.new_zeros((*states.shape[:2], columns, states.shape[-1]))
