"""Greedy answers to many prompts, a fixed number at a time: when one ends, the next prompt takes its place.

transformers' ``generate`` keeps every row of a batch until its last one has ended. Here the start that all prompts
share is read once, an ended row's place is filled, and at the end the batch shrinks.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.models.device import base_precision
from harness.scoring.kv_cache import SlotCache
from harness.scoring.prefix import keeps_last_logits, read_prefix, reads_in_parts, shared_prefix

REFILL = 8  # places are filled once 1/8 of them is free: filling one by one would read the weights for each
SHRINK = 4  # without prompts left, the batch shrinks once 1/4 of it has ended: shrinking copies the cache
STALE = 4  # columns that no row uses any more are dropped once they are 1/4 of the cache

Seen = Callable[[Sequence[int], torch.Tensor], None]  # prompts by place (-1: none), their next logits (places, v)


def can_decode(model: Any, prompts: Sequence[Sequence[int]], limit: int) -> bool:
    """Whether ``greedy`` gives this model's answers: it must read prompts in parts, with padding between them."""
    return reads_in_parts(model, max(map(len, prompts), default=0) + limit)


def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
    stops: Sequence[int],
    places: int,
    ended: Callable[[int, list[int]], None] = lambda prompt, ids: None,
    seen: Seen | None = None,
) -> list[list[int]]:
    """The ids that the model writes after each prompt, in their order: up to a stop, which is left out, or ``limit``.

    Args:
        prompts: token ids, at least one each.
        places: answers that are written at the same time.
        ended: is told of every answer as it ends.
        seen: is shown the logits that answers are chosen from.
    """
    longest_first = sorted(range(len(prompts)), key=lambda prompt: (-len(prompts[prompt]), prompt))
    with torch.no_grad(), base_precision(model):
        run = _Run(model, prompts, deque(longest_first), limit, frozenset(stops), places, ended, seen)
        while run.active or run.waiting:
            run.fill()
            if run.active:
                run.step()
    return [run.answers[prompt] for prompt in range(len(prompts))]


class _Run:
    """The state of ``greedy``: which prompt is at which place, and what it has read and written."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        waiting: "deque[int]",
        limit: int,
        stops: frozenset[int],
        places: int,
        ended: Callable[[int, list[int]], None],
        seen: Seen | None,
    ) -> None:
        self.waiting = waiting
        self.answers: dict[int, list[int]] = {prompt: [] for prompt in waiting}
        self._model, self._prompts, self._limit, self._stops = model, prompts, limit, stops
        self._size, self._ended, self._seen = min(places, len(prompts)), ended, seen
        self._device = next(model.parameters()).device
        self._keep = {"logits_to_keep": 1} if keeps_last_logits(model) else {}
        common = shared_prefix(prompts, min(map(len, prompts), default=1) - 1)
        self._prefix = prompts[0][:common] if common else []
        self._read = read_prefix(model, self._prefix) if common else None
        self._cache = SlotCache()
        self._owners: list[int] = []  # the prompt at each place; -1: it has ended
        self._starts: list[int] = []  # the column of each place's first token
        self._mask_pt = torch.zeros((0, 0), dtype=torch.long, device=self._device)
        self._positions: list[int] = []  # of each place's next token
        self._last: list[int] = []  # the token that was written last

    @property
    def active(self) -> int:
        """Answers being written."""
        return sum(owner >= 0 for owner in self._owners)

    def fill(self) -> None:
        """Give free places to waiting prompts; without any, give up places that have ended."""
        while self.waiting and (not self.active or self._free() >= max(1, self._size // REFILL)):
            if not self.active:
                self._begin()
            else:
                self._refill()
        if not self.waiting and 0 < self.active <= len(self._owners) - max(1, len(self._owners) // SHRINK):
            self._select([place for place, owner in enumerate(self._owners) if owner >= 0])

    def step(self) -> None:
        """Write one more token of each answer."""
        self._mask_pt = torch.cat([self._mask_pt, self._mask_pt.new_ones((len(self._owners), 1))], dim=1)
        logits_pv = self._model(
            input_ids=torch.tensor(self._last, device=self._device)[:, None],
            attention_mask=self._mask_pt,
            position_ids=torch.tensor(self._positions, device=self._device)[:, None],
            past_key_values=self._cache,
            use_cache=True,
            **self._keep,
        ).logits[:, -1]
        self._positions = [position + 1 for position in self._positions]
        self._take(list(range(len(self._owners))), logits_pv)

    def _free(self) -> int:
        return self._size - self.active

    def _begin(self) -> None:
        """Fill all places anew."""
        chosen = [self.waiting.popleft() for _ in range(min(self._size, len(self.waiting)))]
        self._cache, self._mask_pt, logits_pv = self._prefill(chosen)
        self._owners, self._starts = chosen, self._first_columns(chosen)
        self._positions = [len(self._prompts[prompt]) for prompt in chosen]
        self._last = [0] * len(chosen)
        self._take(list(range(len(chosen))), logits_pv)

    def _refill(self) -> None:
        """Put waiting prompts into the places of answers that have ended."""
        free = [place for place, owner in enumerate(self._owners) if owner < 0][: len(self.waiting)]
        chosen = [self.waiting.popleft() for _ in free]
        cache, mask_pt, logits_pv = self._prefill(chosen)
        self._drop_stale_columns()
        self._cache.put_rows(free, cache)
        before = self._cache.used - cache.used  # never negative: longer prompts came first, and have grown since
        rows = torch.tensor(free, device=self._device)
        self._mask_pt[rows, :before] = 0
        self._mask_pt[rows, before:] = mask_pt
        for place, prompt, start in zip(free, chosen, self._first_columns(chosen), strict=True):
            self._owners[place], self._starts[place] = prompt, before + start
            self._positions[place] = len(self._prompts[prompt])
        self._take(free, logits_pv)

    def _first_columns(self, chosen: Sequence[int]) -> list[int]:
        """Where each prompt begins within its pass: at once behind a shared prefix, else after its padding."""
        width = max(len(self._prompts[prompt]) for prompt in chosen)
        return [0 if self._prefix else width - len(self._prompts[prompt]) for prompt in chosen]

    def _prefill(self, chosen: Sequence[int]) -> tuple[SlotCache, torch.Tensor, torch.Tensor]:
        """Read these prompts: their cache, what of it is text (rows, columns), and the next logits (rows, v)."""
        common = len(self._prefix)
        rests = [self._prompts[prompt][common:] for prompt in chosen]
        width = max(map(len, rests))
        # The prefix stands before the padding: each text goes on from the last column.
        ids = [[0] * (width - len(rest)) + list(rest) for rest in rests]
        mask = [[1] * common + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests]
        places = [[0] * (width - len(rest)) + list(range(common, common + len(rest))) for rest in rests]
        mask_pt = torch.tensor(mask, device=self._device)
        cache = self._read.repeated(len(chosen)) if self._read else SlotCache()
        logits_ptv = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=mask_pt,
            position_ids=torch.tensor(places, device=self._device),
            past_key_values=cache,
            use_cache=True,
            **self._keep,
        ).logits
        return cache, mask_pt, logits_ptv[:, -1]

    def _take(self, places: Sequence[int], logits_pv: torch.Tensor) -> None:
        """Write the likeliest token at these places."""
        if self._seen:
            self._seen([self._owners[place] for place in places], logits_pv)
        # In float32, as transformers chooses.
        for place, token in zip(places, logits_pv.float().argmax(dim=-1).tolist(), strict=True):
            prompt = self._owners[place]
            self._last[place] = token
            if prompt < 0:
                continue
            answer = self.answers[prompt]
            if token not in self._stops:
                answer.append(token)
            if token in self._stops or len(answer) == self._limit:
                self._owners[place] = -1
                self._ended(prompt, answer)

    def _drop_stale_columns(self) -> None:
        stale = min(start for start, owner in zip(self._starts, self._owners, strict=True) if owner >= 0)
        if stale * STALE >= self._cache.used:
            self._cache.drop_columns(stale)
            self._mask_pt = self._mask_pt[:, stale:].contiguous()
            self._starts = [start - stale for start in self._starts]

    def _select(self, places: list[int]) -> None:
        """Keep these places alone."""
        self._cache.keep_rows(places)
        self._mask_pt = self._mask_pt[torch.tensor(places, device=self._device)]
        self._owners, self._starts, self._positions, self._last = (
            [values[place] for place in places] for values in (self._owners, self._starts, self._positions, self._last)
        )
