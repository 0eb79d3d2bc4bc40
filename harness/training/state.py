"""The state of a training run on disk: all that a resumed run needs to end as if it had never stopped.

Weights that train and the method's own state, optimizer, schedule, loss scale, random states, and what the
callbacks have gathered. The position in the data is not stored: the order of the rows follows from seed and epoch.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback

from harness.methods.hooks import Hooks
from harness.runtime import distributed
from harness.training import sharding
from harness.training.counters import StepTimer, TokenCounter
from harness.training.early_stopping import StopEarly
from harness.training.preferences import Preferences
from harness.training.validation import KeepBest, Validate

WEIGHTS, METHOD, GATHERED, BEST = "trainable.safetensors", "method.pt", "gathered.json", "best.safetensors"


TRAINER_STATE = "trainer_state.json"  # the name that Trainer looks for


@dataclass
class CallbackState:
    """The callbacks whose state is not part of Trainer's own."""

    validate: Validate
    best: KeepBest | None
    timer: StepTimer
    tokens: TokenCounter
    stop: StopEarly | None = None
    preferences: Preferences | None = None

    def values(self, trainer: Any, done: bool) -> dict[str, Any]:
        """What ``write`` stores; all processes of a distributed run must call this."""
        losses = distributed.gather(float(trainer._tr_loss))  # each its own: their mean is logged
        return {
            "done": done,
            "validation": self.validate.history,
            "best": self.best.state() if self.best else None,
            "early_stopping": self.stop.state() if self.stop else None,
            "preferences": self.preferences.state() if self.preferences else None,
            "step_seconds": self.timer.seconds,
            "tally": self.tokens.state(),
            "train_loss": [losses, trainer._total_loss_scalar, trainer._globalstep_last_logged],
        }

    def write(self, folder: Path, values: Mapping[str, Any]) -> None:
        """Store the values, and the best weights so far."""
        (folder / GATHERED).write_text(json.dumps(values), encoding="utf-8")
        if self.best and self.best.path.exists() and not values["done"]:
            shutil.copyfile(self.best.path, folder / BEST)

    def read(self, folder: Path) -> dict[str, Any]:
        """Restore what ``write`` stored; return the values."""
        values = json.loads((folder / GATHERED).read_text(encoding="utf-8"))
        self.validate.history[:] = values["validation"]
        self.timer.seconds = values["step_seconds"]
        self.tokens.load(values["tally"])
        if self.stop:
            self.stop.load(values["early_stopping"])
        if self.preferences:
            self.preferences.load(values["preferences"])
        if self.best:
            self.best.load(values["best"])
            if (folder / BEST).exists() and distributed.is_main_process():
                self.best.path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / BEST, self.best.path)
        return dict(values)


class RestoreLosses(TrainerCallback):
    """Restores the training loss since its last point on the curve, which Trainer resets when it begins."""

    def __init__(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        self._trainer, self._values = trainer, values["train_loss"]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        trainer: Any = self._trainer
        losses, trainer._total_loss_scalar, trainer._globalstep_last_logged = self._values
        trainer._tr_loss += losses[distributed.rank()]


def write_state(trainer: Any, gathered: CallbackState, folder: Path) -> None:
    """Fill ``folder`` with the state after the current optimizer step; all processes call this."""
    values = gathered.values(trainer, done=False)
    if trainer.args.should_save:
        write_model(trainer.model, trainer.hooks, folder)
        gathered.write(folder, values)
        trainer.state.save_to_json(str(folder / TRAINER_STATE))
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))


def write_end_state(trainer: Any, gathered: CallbackState, values: Mapping[str, Any], folder: Path) -> None:
    """Fill ``folder`` with the end of training: the weights that were kept, without an optimizer."""
    write_model(trainer.model, trainer.hooks, folder)
    gathered.write(folder, values)
    trainer.state.save_to_json(str(folder / TRAINER_STATE))


def is_end_state(folder: Path) -> bool:
    """Whether the checkpoint is of the end of training."""
    return bool(json.loads((folder / GATHERED).read_text(encoding="utf-8"))["done"])


def write_model(model: Any, hooks: Hooks, folder: Path) -> None:
    """Write the weights that train, and the method's own state."""
    save_file(sharding.trainable_weights(model), folder / WEIGHTS)
    if state := hooks.state(model):
        torch.save(state, folder / METHOD)


def read_weights(model: Any, hooks: Hooks, folder: Path) -> None:
    """Restore weights and the method's state in a model that was made by the same plan."""
    if (folder / METHOD).exists():
        hooks.load_state(model, torch.load(folder / METHOD, map_location="cpu", weights_only=True))
    sharding.put_weights(model, load_file(folder / WEIGHTS))
