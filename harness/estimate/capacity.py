"""Whether an adapter can store what its rows have to teach: bits of the data against bits of the adapter.

What the untouched base does not know of the completions is its loss on them, in bits, summed over the training rows: an
upper limit, because rows share what they teach. Against this stand the bits that a trained number holds. They depend on
how often a fact is seen: Allen-Zhu and Li (2024, arXiv:2404.05405) find 2 for whole models after 1,000 exposures and 1
after 100. Those of LoRA were measured here, on made facts (``scripts/bench/capacity.py``, docs/planning.md). A method
whose numbers hold less than the rows have is bound by its size.
"""

import itertools
import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.estimate.plan_counter import PlanCounter
from harness.plan.spec import Plan, epoch_steps, optimizer_steps

if TYPE_CHECKING:
    from harness.models.base import Base

# Bits of random values that a trained number of LoRA stored, by how often each row was passed: means over the two sets
# that calibrate, at rank 1, which is too small for them.
MEASURED: dict[int, float] = {25: 0.61, 50: 1.14, 100: 1.58, 200: 1.89}
OFTEN = max(MEASURED)  # passes after which a number was not seen to hold more
RANKS = {"lora": "r", "loha": "r", "adalora": "init_r"}  # the setting that is a rank


@dataclass(frozen=True)
class Demand:
    """What the training rows ask of an adapter."""

    bits: float
    tokens: int  # of completions
    rows: int

    @property
    def per_token(self) -> float:
        """Bits that the base lacks of a completion token."""
        return self.bits / self.tokens


@dataclass(frozen=True)
class Room:
    """What an adapter holds of that.

    Ranks are the smallest powers of two that hold everything; None: the method has no rank, or it would be too large.
    """

    demand: Demand
    trained: int
    passes: float  # over the training rows
    rank: int | None  # if all that the rows teach is seen often, because rows repeat each other
    rank_at_passes: int | None  # if each row teaches what no other does, so that it is seen once a pass

    @property
    def bits(self) -> float:
        """That the adapter holds of what it sees often."""
        return self.trained * bits_per_number(OFTEN)

    @property
    def share(self) -> float:
        """Of the rows' bits."""
        return self.bits / self.demand.bits


def bits_per_number(passes: float) -> float:
    """Bits that a trained number holds of what it has seen so often: straight lines over the logarithm of ``MEASURED``,
    proportional to the passes below, constant above."""
    first, *_, last = MEASURED
    if passes <= first:
        return MEASURED[first] * passes / first
    if passes >= last:
        return MEASURED[last]
    low, high = next(pair for pair in itertools.pairwise(MEASURED) if pair[0] <= passes <= pair[1])
    share = math.log(passes / low) / math.log(high / low)
    return MEASURED[low] + share * (MEASURED[high] - MEASURED[low])


def demand_of(plan: Plan, base: "Base") -> Demand:
    """One pass of the untouched base over the completions of the training rows."""
    from harness.data import dataset
    from harness.data.tokenize import tokenize_splits
    from harness.scoring.losses import mean_completion_loss

    rows = tokenize_splits(dataset.read_splits(plan.data), plan.data, base.tokenizer).splits["train"]
    tokens = sum(len(row.input_ids) - row.prompt_length for row in rows)
    pad = int(base.tokenizer.pad_token_id)
    nats = mean_completion_loss(base.model, rows, pad_id=pad, batch_size=plan.scoring.loss_batch_size)
    return Demand(nats / math.log(2) * tokens, tokens, len(rows))


def room_of(plan: Plan, demand: Demand, counter: PlanCounter) -> Room:
    """What the plan's adapter holds, and the ranks from which on it holds everything."""
    passes = optimizer_steps(plan.trainer, demand.rows) / epoch_steps(plan.trainer, demand.rows)
    ranks = [_rank(plan, demand.bits / bits_per_number(seen), counter) for seen in (OFTEN, passes)]
    return Room(demand, counter.count(plan).trainable, passes, *ranks)


def _rank(plan: Plan, numbers: float, counter: PlanCounter) -> int | None:
    knob = RANKS.get(plan.method)
    if knob is None:
        return None
    one = replace(plan, settings=MappingProxyType({**plan.settings, knob: 1}))
    return smallest_rank(numbers / counter.count(one).trainable)


def smallest_rank(wanted: float, most: int = 4096) -> int | None:
    """The smallest power of two that is at least as much as wanted; None: it is more than ``most``."""
    rank = 2 ** max(0, math.ceil(math.log2(max(wanted, 1.0))))
    return rank if rank <= most else None
