"""Which passes of a plan are written out."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from harness.config.schema import Kernels, Objective, Strategy, Trainer
from harness.training.fused.low_rank import fused_lora


@contextmanager
def fused_passes(model: nn.Module, trainer: Trainer) -> Iterator[bool]:
    """Write out passes where that is faster; gives whether losses may do without logits, too."""
    sharded = trainer.parallel.strategy not in (Strategy.none, Strategy.ddp)
    if trainer.kernels is Kernels.plain or sharded:
        yield False
        return
    with fused_lora(model):
        yield trainer.objective in (Objective.completion, Objective.full_sequence)
