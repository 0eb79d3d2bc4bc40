"""When a checkpoint is due: by time, by steps, and when the process is told to stop."""

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.errors import Paused
from harness.runtime import signals


class CheckpointWhenDue(TrainerCallback):
    """Asks Trainer for a checkpoint when one is due, and stops after it if the process was told to."""

    def __init__(self, every_s: float | None, every_steps: int | None, pause: int | None = None) -> None:
        """With ``pause``, training ends with ``Paused`` after the checkpoint of that optimizer step."""
        self._every_s, self._every_steps, self._since = every_s, every_steps, time.monotonic()
        self._stop: int | None = None
        self._pause = pause

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        by_time = self._every_s is not None and time.monotonic() - self._since >= self._every_s
        by_steps = bool(self._every_steps) and state.global_step % (self._every_steps or 1) == 0
        due = by_time or by_steps or state.global_step == self._pause
        due, self._stop = _agree_on_saving(args, due, signals.requested())
        # The end of training has a checkpoint of its own.
        if state.global_step < state.max_steps and not control.should_training_stop:
            control.should_save = due or self._stop is not None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._since = time.monotonic()
        if self._stop is not None:
            raise signals.interruption(self._stop)
        if state.global_step == self._pause:
            raise Paused(paused_at(state.global_step, state.max_steps))


def paused_at(step: int, steps: int) -> str:
    """What the record of a paused run says."""
    return f"paused after optimizer step {step} of {steps}, for a verdict (sweep.prune)"


def _agree_on_saving(args: TrainingArguments, due: bool, stop: int | None) -> tuple[bool, int | None]:
    """The same answer in every process of a distributed run: all of them save together."""
    if args.world_size == 1:
        return due, stop
    shared = torch.tensor([int(due), stop or 0], device=args.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return bool(shared[0]), int(shared[1]) or None
