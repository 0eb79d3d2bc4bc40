"""What a running training shows: how far it is, and a curve in the tracker."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.record.progress import ProgressWriter
from harness.training.counters import StepTimer, TokenCounter
from harness.training.validation import Log


class WriteProgress(TrainerCallback):
    """Shows how far training is, here and to other processes."""

    def __init__(self, writer: ProgressWriter, timer: StepTimer, tokens: TokenCounter) -> None:
        self._writer, self._timer, self._tokens = writer, timer, tokens
        self._loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._writer.begin(state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._writer.due():  # counting the tokens waits for the device
            rate = self._tokens.text_tokens / max(self._timer.seconds, 1e-9)
            self._writer.step(state.global_step, self._loss, rate)


class LogCurve(TrainerCallback):
    """Hands the training curve to the tracker as it grows."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        for values in curve_of([{**(logs or {}), "step": state.global_step}]):
            named = {f"train/{key}": value for key, value in values.items() if key != "step"}
            self._log(state.global_step, named)


def curve_of(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The training points of Trainer's log: step, loss, learning rate and gradient norm; of preferences two more."""
    keys = ("step", "loss", "learning_rate", "grad_norm", "margin", "accuracy")
    return [{key: float(entry[key]) for key in keys if key in entry} for entry in history if "loss" in entry]
