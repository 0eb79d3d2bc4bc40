"""One run of a pack, as its own Trainer sees it: who takes its batches, and what the record says about that."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.models.base import Base


@dataclass(frozen=True)
class Batch:
    """A batch that a run hands over.

    Attributes:
        model: the run's own, with its adapter.
        base: what it is a fork of.
        inputs: as the model takes them, on its device.
        items: tokens that the loss is divided by: those of the whole optimizer step.
        precision: of the arithmetic.
        tokens: of a batch of this run on average, with padding.
        most_tokens: of its largest batch.
        alone: why the Trainer cannot let others compute its pass; None if it can.
        fused: whether its loss is computed without all logits, where the model allows it.
    """

    model: "PeftModel"
    base: "Base"
    inputs: dict[str, Any]
    items: Any
    precision: Callable[[], AbstractContextManager[Any]]
    tokens: float
    most_tokens: int
    alone: str | None = None
    fused: bool = False


@dataclass(frozen=True)
class Answer:
    """What a run gets back.

    Attributes:
        loss: of its batch; its gradients are in place. None: the run computes this pass itself.
        waited_s: seconds that the run slept, without its share of the pass.
    """

    loss: torch.Tensor | None
    waited_s: float


@dataclass
class Packed:
    """How a run was trained together with others, for its record.

    Attributes:
        runs: most runs in one pass, this one included; 1: it always trained alone.
        others: fingerprints of runs that shared a pass with it.
        passes: that it shared.
        alone: that it computed itself.
        waited_s: seconds in which it waited for the others; part of none of its times.
        peak_bytes: highest memory of a shared pass, that of all runs.
        notes: what a reader of the record should know.
    """

    runs: int = 1
    others: set[str] = field(default_factory=set)
    passes: int = 0
    alone: int = 0
    waited_s: float = 0.0
    peak_bytes: int | None = None
    notes: list[str] = field(default_factory=list)


class Member:
    """A run of a pack.

    Args:
        fingerprint: of its plan.
        meet: hands a batch over and returns when it is computed, after other runs had their turn.

    Attributes:
        base: what its model is a fork of; set when its training begins.
    """

    base: "Base"

    def __init__(self, fingerprint: str, meet: "Callable[[Batch], Answer]") -> None:
        self.fingerprint, self._meet = fingerprint, meet
        self.packed = Packed()

    def take(self, batch: Batch) -> Answer:
        """Have the batch computed together with those of the other runs."""
        answer = self._meet(batch)
        self.packed.waited_s += answer.waited_s
        return answer
