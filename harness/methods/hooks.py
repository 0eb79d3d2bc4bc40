"""What a method does during training beyond having parameters. Each method names its hooks in the table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from harness.methods.context import SheetValues

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.optim import Optimizer


class Hooks:
    """A method that does nothing special during training; others override what they need.

    Hooks hold no state: everything they need comes with the model. They import torch only when called.
    """

    own_loss: ClassVar[bool] = False  # the model's loss is a mean over one batch, computed from all logits
    penalties: ClassVar[tuple[str, ...]] = ()  # weights, in PEFT's config, of what the model adds to its loss

    def initialize(self, model: "PeftModel", settings: SheetValues) -> None:
        """Called once when the method is on the base, before training: may change the first weights."""

    def optimizer(
        self, model: "PeftModel", settings: SheetValues, learning_rate: float, weight_decay: float
    ) -> "Optimizer | None":
        """The optimizer that the method brings; None means AdamW. It may freeze weights."""
        return None

    def after_optimizer_step(self, model: "PeftModel", step: int) -> None:
        """Called after optimizer step ``step`` (from 1), before the gradients are cleared."""

    def after_step(self, model: "PeftModel", optimizer: "Optimizer", step: int) -> None:
        """Called at the end of optimizer step ``step`` (from 1), when the gradients are gone."""

    def first_keepable_step(self, model: "PeftModel") -> int:
        """First optimizer step whose weights may be kept as the best: before pruning they exceed the budget."""
        return 0

    def finish(self, model: "PeftModel") -> dict[str, Any]:
        """Called between training and saving; returns figures for the record."""
        return {}

    def remaining_parameters(self, model: "PeftModel") -> int | None:
        """Trainable parameters that pruning left; None if the method does not prune."""
        return None

    def state(self, model: "PeftModel") -> dict[str, Any]:
        """What a checkpoint must carry besides the trainable weights and the optimizer."""
        return {}

    def load_state(self, model: "PeftModel", state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""


def adapter_of(model: "PeftModel") -> tuple[str, Any, Any]:
    """Name, PEFT config and tuner of the model's active adapter."""
    name = str(model.active_adapter)
    return name, model.peft_config[name], model.base_model
