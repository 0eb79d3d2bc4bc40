"""Where the hooks of a method are called within an optimizer step."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.methods.hooks import Hooks


class MethodHooks(TrainerCallback):
    """Calls the method's hooks at their places in an optimizer step."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Trainer calls this before it counts the step and clears the gradients."""
        self._hooks.after_optimizer_step(model, state.global_step + 1)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        self._hooks.after_step(model, optimizer, state.global_step)
