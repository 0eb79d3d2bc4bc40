"""Parameter counts on the meta device: exact, and without weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import methods, models
from harness.plan import Plan

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


def count_plan(plan: Plan) -> Counts:
    """What this plan would train, from the model's configuration alone.

    Raises:
        ModelFault: the configuration cannot be had, or the method does not fit the model.
    """
    config = models.load_config(plan.model)
    situation = methods.situation_for(plan, config, str(plan.model.path), plan.trainer.max_steps or 0)
    skeleton = models.skeleton(config)
    return count(methods.attach(skeleton, plan.method, plan.settings, methods.for_counting(situation)))


def _numel(parameter: "nn.Parameter") -> int:
    """bitsandbytes packs two 4-bit weights into each stored byte."""
    packed = parameter.__class__.__name__ == "Params4bit"
    return parameter.numel() * 2 * parameter.element_size() if packed else parameter.numel()
