"""How many parameters a model has."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters; a tied weight counts once."""

    trainable: int
    total: int  # base and adapter

    @property
    def share(self) -> float:
        """Trainable share of all parameters, 0 to 1."""
        return self.trainable / self.total


def count(model: "nn.Module") -> Counts:
    """Trainable and total parameters of a built model."""
    parameters = list(model.parameters())
    return Counts(
        trainable=sum(_numel(parameter) for parameter in parameters if parameter.requires_grad),
        total=sum(_numel(parameter) for parameter in parameters),
    )


def _numel(parameter: "nn.Parameter") -> int:
    """How many weights a parameter holds: bitsandbytes packs two 4-bit ones into each byte."""
    if parameter.__class__.__name__ != "Params4bit":
        return parameter.numel()
    state = getattr(parameter, "quant_state", None)
    return math.prod(state.shape) if state is not None else parameter.numel() * 2 * parameter.element_size()
