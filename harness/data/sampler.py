"""The order of training rows: shuffled by seed and epoch, with neighbors of similar length."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

MEGABATCH = 8  # optimizer steps whose rows are sorted by length together


class LengthSampler(Sampler[int]):
    """Row indices, reshuffled each epoch by seed and epoch alone, with neighbors of similar length.

    Rows are shuffled, sorted by length within megabatches of ``MEGABATCH`` steps, cut into the rows of one optimizer
    step each, and the steps are shuffled: there is little padding, and the order needs no stored state to resume.
    The unit is the step, so that accumulating smaller batches, or splitting them among processes, trains on the same
    rows.

    Args:
        rows_per_step: rows of one optimizer step, over all processes.
        together: rows that all processes take at once; the last step is filled up to a multiple of it with -1, which
            stands for no row.
    """

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int, together: int = 1) -> None:
        self._lengths, self._batch, self._seed, self._epoch = lengths, rows_per_step, seed, 0
        self._filling = -len(lengths) % together

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self._lengths) / self._batch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._lengths) + self._filling

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        megabatch = self._batch * MEGABATCH
        batches: list[list[int]] = []
        for start in range(0, len(order), megabatch):
            rows = sorted(order[start : start + megabatch], key=lambda row: self._lengths[row], reverse=True)
            batches += [rows[at : at + self._batch] for at in range(0, len(rows), self._batch)]
        # A short step stays last: DataLoader cuts the flat order by count alone.
        full = [batch for batch in batches if len(batch) == self._batch]
        short = [batch for batch in batches if len(batch) < self._batch]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index]
        for batch in short:
            yield from batch
        yield from [-1] * self._filling
