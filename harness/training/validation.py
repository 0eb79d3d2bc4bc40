"""Validation during training, and the weights of its lowest loss."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import RunFault
from harness.models.network import is_sharded
from harness.record.files import replacing
from harness.runtime import distributed
from harness.training.sharding import put_weights, trainable_weights

Log = Callable[[int, dict[str, float]], None]  # optimizer step, values by name


class Validate(TrainerCallback):
    """Computes the validation loss after the given optimizer steps; raises RunFault if it is not finite."""

    def __init__(self, measure: Callable[[Any], dict[str, float]], steps: Sequence[int], log: Log) -> None:
        """``measure``: gives the ``loss`` of a model, and what else of it belongs on the curve."""
        self._measure, self._steps, self._log = measure, set(steps), log
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
            # A whole model needs no other process; shards are gathered in all of them at once.
            found = (
                self._measure(model)
                if is_sharded(model)
                else distributed.broadcast_from_main(lambda: self._measure(model))
            )
            loss = found["loss"]
            if not math.isfinite(loss):
                # The last update may have broken the weights, with no training step left to notice it.
                raise RunFault(
                    f"the validation loss is not finite ({loss}) after optimizer step {state.global_step}; lower "
                    "trainer.learning_rate, raise trainer.warmup_share, or use model.dtype=float32"
                )
            self.history.append({"step": state.global_step, **found})
            self._log(state.global_step, {f"validation/{name}": value for name, value in found.items()})


class KeepBest(TrainerCallback):
    """Keeps the trainable weights of the lowest validation loss on disk; the same for every method."""

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
        """Put the best weights back; the last ones stay if they are the best, or if none was eligible.

        Only in the main process, which does all that follows training.
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
        """For a checkpoint; the weights are in ``path``."""
        return {"step": self.step, "lowest": self._lowest if self.step is not None else None}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` gave."""
        self.step = state["step"]
        self._lowest = float("inf") if state["lowest"] is None else state["lowest"]
