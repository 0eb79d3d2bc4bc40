"""Whether an adapter can store what its first epoch has to teach: bits of the data against bits of the adapter.

What the untouched base does not know of the completions is its loss on them, in bits, summed over the training rows: an
upper limit, because rows share what they teach. Against this stand 2 bits a trained number, what language models were
found to store of facts that they see often enough (Allen-Zhu and Li 2024, arXiv:2404.05405, who find about 1 bit for
facts that are seen a tenth as often). A method whose numbers hold less is bound by its size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.estimate.plan_counter import PlanCounter
from harness.plan.spec import Plan

if TYPE_CHECKING:
    from harness.models.base import Base

BITS_PER_NUMBER = 2.0
RANKS = {"lora": "r", "loha": "r", "adalora": "init_r"}  # the setting that is a rank


@dataclass(frozen=True)
class Demand:
    """What the training rows ask of an adapter."""

    bits: float
    tokens: int  # of completions

    @property
    def per_token(self) -> float:
        """Bits that the base lacks of a completion token."""
        return self.bits / self.tokens


@dataclass(frozen=True)
class Room:
    """What an adapter holds of that."""

    demand: Demand
    trained: int
    bound_below: int | None  # the smallest power of two of the rank that holds everything; None: no rank, or too large

    @property
    def share(self) -> float:
        """Bits that the adapter holds, over those that the rows have."""
        return self.trained * BITS_PER_NUMBER / self.demand.bits


def demand_of(plan: Plan, base: "Base") -> Demand:
    """One pass of the untouched base over the completions of the training rows."""
    from harness.data import dataset
    from harness.data.tokenize import tokenize_splits
    from harness.scoring.losses import mean_completion_loss

    rows = tokenize_splits(dataset.read_splits(plan.data), plan.data, base.tokenizer).splits["train"]
    tokens = sum(len(row.input_ids) - row.prompt_length for row in rows)
    pad = int(base.tokenizer.pad_token_id)
    nats = mean_completion_loss(base.model, rows, pad_id=pad, batch_size=plan.scoring.loss_batch_size)
    return Demand(nats / math.log(2) * tokens, tokens)


def room_of(plan: Plan, demand: Demand, counter: PlanCounter) -> Room:
    """What the plan's adapter holds, and the rank from which on it holds everything."""
    return Room(demand, counter.count(plan).trainable, _rank(plan, demand, counter))


def _rank(plan: Plan, demand: Demand, counter: PlanCounter) -> int | None:
    knob = RANKS.get(plan.method)
    if knob is None:
        return None

    def trained(rank: int) -> int:
        return counter.count(replace(plan, settings=MappingProxyType({**plan.settings, knob: rank}))).trainable

    return smallest_rank(demand.bits, trained)


def smallest_rank(bits: float, trained: Callable[[int], int], most: int = 4096) -> int | None:
    """The smallest power of two at which the numbers hold so many bits; they rise in proportion to the rank."""
    each = trained(1) * BITS_PER_NUMBER
    rank = 2 ** max(0, math.ceil(math.log2(max(bits, 1.0) / each)))
    return rank if rank <= most else None
