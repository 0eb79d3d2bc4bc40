"""What a running training shows: a bar on the console, a file for other processes, a curve in the tracker."""

import sys
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.record.progress import ProgressWriter
from harness.runtime import distributed
from harness.runtime.terminal import printable
from harness.training.counters import StepTimer, TokenCounter
from harness.training.validation import Log, Validate


class ProgressBar(TrainerCallback):
    """A bar with loss, tokens per second and time left, if there is a terminal to draw it on."""

    def __init__(self, label: str, timer: StepTimer, tokens: TokenCounter, validate: Validate) -> None:
        self._label, self._timer, self._tokens, self._validate = label, timer, tokens, validate
        self._bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            desc=printable(self._label, one_line=True),
            unit="step",
            leave=False,
            disable=not (distributed.is_main_process() and sys.stderr.isatty()),
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self._bar is None or logs is None or "loss" not in logs:
            return
        shown = {"loss": f"{logs['loss']:.3f}"}
        if self._validate.history:
            shown["validation"] = f"{self._validate.history[-1]['loss']:.3f}"
        shown["tokens/s"] = f"{self._tokens.text_tokens / max(self._timer.seconds, 1e-9):.0f}"
        self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._bar.close()


class WriteProgress(TrainerCallback):
    """Writes for other processes how far training is."""

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
    """The training points of Trainer's log: step, loss, learning rate and gradient norm."""
    keys = ("step", "loss", "learning_rate", "grad_norm")
    return [{key: float(entry[key]) for key in keys if key in entry} for entry in history if "loss" in entry]
