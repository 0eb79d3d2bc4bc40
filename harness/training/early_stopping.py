"""The end of training before its last step, when the validation loss no longer falls."""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.training.validation import Validate


@dataclass(frozen=True)
class EarlyStop:
    """Where and why training ended early, as the record keeps it."""

    step: int  # optimizer steps that were done
    steps: int  # of the whole training, for which the schedule of the learning rate was made
    evaluation: int  # the one after which it ended, from 1
    loss: float  # validation loss there, in nats per completion token
    lowest: float  # the loss that none of the last ``patience`` evaluations was below by more than ``min_change``
    lowest_step: int
    patience: int
    min_change: float

    @property
    def words(self) -> str:
        """For the console and the notes of the record."""
        change = f" by more than {self.min_change:g}" if self.min_change else ""
        times = "1 evaluation" if self.patience == 1 else f"{self.patience} evaluations in a row"
        return (
            f"stopped early after optimizer step {self.step} of {self.steps} (trainer.early_stopping): {times} without "
            f"a validation loss below {self.lowest:.4g} of step {self.lowest_step}{change}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class StopEarly(TrainerCallback):
    """Ends training after ``patience`` evaluations in a row without a lower validation loss.

    A loss counts as lower if it is below the lowest one that counted by more than ``min_change``. It must stand after
    ``Validate``, whose losses it reads.
    """

    def __init__(self, validate: Validate, patience: int, min_change: float, first_step: int) -> None:
        """``first_step``: evaluations before it do not count; a method may prune until then."""
        self._validate, self._patience, self._min_change, self._first = validate, patience, min_change, first_step
        self._lowest: tuple[int, float] | None = None  # step and loss
        self._waited = 0
        self.stop: EarlyStop | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        history, step = self._validate.history, state.global_step
        if not history or history[-1]["step"] != step or step < self._first:
            return control
        loss = history[-1]["loss"]
        if self._lowest is None or loss < self._lowest[1] - self._min_change:
            self._lowest, self._waited = (step, loss), 0
            return control
        self._waited += 1
        if self._waited >= self._patience and step < state.max_steps:
            lowest_step, lowest = self._lowest
            self.stop = EarlyStop(
                step, state.max_steps, len(history), loss, lowest, lowest_step, self._patience, self._min_change
            )
            control.should_training_stop = True
            control.should_log = True  # the curve ends where training does
        return control

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "lowest": self._lowest,
            "waited": self._waited,
            "stop": None if self.stop is None else self.stop.as_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` gave."""
        self._lowest = None if state["lowest"] is None else (int(state["lowest"][0]), float(state["lowest"][1]))
        self._waited = state["waited"]
        self.stop = None if state["stop"] is None else EarlyStop(**state["stop"])
