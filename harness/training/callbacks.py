"""What accompanies training: validation, the best weights, rank pruning, timing, the progress bar."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import RunFault
from harness.methods.hooks import Hooks
from harness.record.files import replacing
from harness.record.progress import ProgressWriter
from harness.runtime import distributed, signals
from harness.training import sharding
from harness.training.sharding import put_weights, trainable_weights

Log = Callable[[int, dict[str, float]], None]


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


class Validate(TrainerCallback):
    """Takes the validation loss at the given optimizer steps; RunFault where it is not finite."""

    def __init__(self, loss: Callable[..., float], steps: Sequence[int], log: Log) -> None:
        self._loss, self._steps, self._log = loss, set(steps), log
        self.history: list[dict[str, float]] = []

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        if state.global_step in self._steps:
            # A whole model needs no other process; shards come together in all of them at once.
            loss = (
                self._loss(model)
                if sharding.is_sharded(model)
                else distributed.broadcast_from_main(lambda: self._loss(model))
            )
            if not math.isfinite(loss):
                # The last update may have broken the weights, with no training step left to notice.
                raise RunFault(
                    f"the validation loss is not finite ({loss}) after optimizer step {state.global_step}; lower "
                    "trainer.learning_rate, raise trainer.warmup_share, or use model.dtype=float32"
                )
            self.history.append({"step": state.global_step, "loss": loss})
            self._log(state.global_step, {"validation/loss": loss})


class KeepBest(TrainerCallback):
    """Keeps the trainable weights of the lowest validation loss on disk; works for every method alike."""

    def __init__(self, validate: Validate, folder: Path, first_step: int) -> None:
        self._validate, self.path, self._first = validate, folder / "best.safetensors", first_step
        self.step: int | None = None
        self._lowest = float("inf")

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        latest = self._validate.history[-1] if self._validate.history else None
        if latest is None or latest["step"] != state.global_step or state.global_step < self._first:
            return
        if latest["loss"] < self._lowest:
            self._lowest, self.step = latest["loss"], state.global_step
            if state.global_step < state.max_steps:
                self._save(model)
            elif distributed.is_main_process():
                self.path.unlink(missing_ok=True)  # the last weights are the best: nothing to restore

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best weights back; the last ones stay where they are the best, or none was eligible.

        Of several processes in the first alone, whose work all that follows training is.
        """
        if not (distributed.is_main_process() and self.path.exists()):
            return
        put_weights(model, load_file(self.path))
        self.path.unlink()

    def _save(self, model: torch.nn.Module) -> None:
        weights = trainable_weights(model)
        if not distributed.is_main_process():
            return
        with replacing(self.path) as partial:
            save_file(weights, partial)

    def state(self) -> dict[str, Any]:
        """For a checkpoint; the weights lie in ``path``."""
        return {"step": self.step, "lowest": self._lowest if self.step is not None else None}

    def load(self, state: dict[str, Any]) -> None:
        """Back to what ``state`` gave."""
        self.step = state["step"]
        self._lowest = float("inf") if state["lowest"] is None else state["lowest"]


class Checkpoint(TrainerCallback):
    """Asks Trainer for a checkpoint when one is due, and stops after it where the process was told to."""

    def __init__(self, every_s: float | None, every_steps: int | None) -> None:
        self._every_s, self._every_steps, self._since = every_s, every_steps, time.monotonic()
        self._stop: int | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        late = self._every_s is not None and time.monotonic() - self._since >= self._every_s
        far = bool(self._every_steps) and state.global_step % (self._every_steps or 1) == 0
        due, self._stop = _agree_on_saving(args, late or far, signals.requested())
        if state.global_step < state.max_steps:  # the end of training is kept by itself
            control.should_save = due or self._stop is not None

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()
        if self._stop is not None:
            raise signals.Interrupted(self._stop)


def _agree_on_saving(args: TrainingArguments, due: bool, stop: int | None) -> tuple[bool, int | None]:
    """The same answer in every process of a distributed run: saving is done by all of them together."""
    if args.world_size == 1:
        return due, stop
    said = torch.tensor([int(due), stop or 0], device=args.device)
    torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
    return bool(said[0]), int(said[1]) or None


class TokenCounter:
    """Counts the tokens that pass through the model, on its device, so that counting never waits for it."""

    def __init__(self, device: torch.device, labels_are_text: bool = True) -> None:
        """``labels_are_text``: each label is the text's own token at its place, as all but the lesson's are."""
        self._counts = torch.zeros(3, dtype=torch.long, device=device)
        self._labels_are_text = labels_are_text

    def add(self, inputs: dict[str, torch.Tensor]) -> None:
        """Count one batch of ``input_ids``, ``attention_mask`` and ``labels``, each of shape (b, t)."""
        present = inputs["attention_mask"].sum()
        supervised = (inputs["labels"][:, 1:] != -100).sum()  # nothing predicts the first token
        present = present * (supervised > 0)  # a batch that only keeps pace with the other processes
        padding = inputs["attention_mask"].numel() - present
        self._counts += torch.stack((supervised, present, padding)).to(self._counts.device)

    def counts(self) -> dict[str, int]:
        """Labels trained on, prompt tokens and padding tokens so far, of all processes."""
        supervised, present, padding = self.state()
        prompt = present - supervised if self._labels_are_text else present
        return {"supervised_tokens": supervised, "prompt_tokens": prompt, "padding_tokens": padding}

    def state(self) -> list[int]:
        """For a checkpoint: supervised, present and padding tokens of all processes, all of which must ask."""
        everywhere = distributed.gather([int(each) for each in self._counts.tolist()])
        return [sum(each) for each in zip(*everywhere, strict=True)]

    def load(self, state: Sequence[int]) -> None:
        """Back to what ``state`` gave; of several processes the first has it all."""
        self._counts.copy_(torch.tensor(state) if distributed.is_main_process() else torch.zeros(3))

    @property
    def text_tokens(self) -> int:
        """Tokens of text that the model has read so far; padding does not count.

        Other processes have read about as many as this one.
        """
        return int(self._counts[1]) * distributed.processes()


class StepTimer(TrainerCallback):
    """Seconds spent in optimizer steps alone."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    # The other callbacks of a step's end (validation, saving) are no part of the step.
    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._since


class ProgressBar(TrainerCallback):
    """A bar with loss, tokens per second and time left, where there is a terminal to draw it on."""

    def __init__(self, label: str, clock: StepTimer, tally: TokenCounter, validate: Validate) -> None:
        self._label, self._clock, self._tally, self._validate = label, clock, tally, validate
        self._bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar = tqdm(
            total=state.max_steps,
            desc=self._label,
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
        shown["tokens/s"] = f"{self._tally.text_tokens / max(self._clock.seconds, 1e-9):.0f}"
        self._bar.set_postfix(shown, refresh=False)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._bar.close()


class WriteProgress(TrainerCallback):
    """Tells other processes how far training is."""

    def __init__(self, beacon: ProgressWriter, clock: StepTimer, tally: TokenCounter) -> None:
        self._beacon, self._clock, self._tally = beacon, clock, tally
        self._loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._beacon.begin(state.global_step, state.max_steps)

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
        if self._beacon.due():  # counting the tokens waits for the device
            rate = self._tally.text_tokens / max(self._clock.seconds, 1e-9)
            self._beacon.step(state.global_step, self._loss, rate)


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
        point = curve_of([{**(logs or {}), "step": state.global_step}])
        for values in point:
            named = {f"train/{key}": value for key, value in values.items() if key != "step"}
            self._log(state.global_step, named)


def curve_of(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The training points of Trainer's log: step, loss, learning rate and gradient norm."""
    keys = ("step", "loss", "learning_rate", "grad_norm")
    return [{key: float(entry[key]) for key in keys if key in entry} for entry in history if "loss" in entry]
