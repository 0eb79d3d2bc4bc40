"""The state of a training run on disk: all that makes going on equal to never having stopped.

Weights that train and what the method keeps beside them, optimizer, schedule, loss scale, random states, and
what the callbacks have gathered. The place in the data needs nothing: the order of the rows follows from seed
and epoch alone.
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
from harness.training import callbacks, sharding

WEIGHTS, METHOD, GATHERED, BEST = "trainable.safetensors", "method.pt", "gathered.json", "best.safetensors"


TRAINER_STATE = "trainer_state.json"  # the name that Trainer looks for


@dataclass
class CallbackState:
    """What accompanies training and is no part of Trainer's own state."""

    validate: callbacks.Validate
    best: callbacks.KeepBest | None
    clock: callbacks.StepTimer
    tally: callbacks.TokenCounter

    def values(self, trainer: Any, done: bool) -> dict[str, Any]:
        """What ``write`` keeps; all processes of a distributed run must ask for it."""
        losses = distributed.gather(float(trainer._tr_loss))  # Trainer logs their mean
        return {
            "done": done,
            "validation": self.validate.history,
            "best": self.best.state() if self.best else None,
            "step_seconds": self.clock.seconds,
            "tally": self.tally.state(),
            "text_loss": [sum(losses) / len(losses), trainer._total_loss_scalar, trainer._globalstep_last_logged],
        }

    def write(self, folder: Path, values: Mapping[str, Any]) -> None:
        (folder / GATHERED).write_text(json.dumps(values), encoding="utf-8")
        if self.best and self.best.path.exists() and not values["done"]:
            shutil.copyfile(self.best.path, folder / BEST)

    def read(self, folder: Path) -> dict[str, Any]:
        values = json.loads((folder / GATHERED).read_text(encoding="utf-8"))
        self.validate.history[:] = values["validation"]
        self.clock.seconds = values["step_seconds"]
        self.tally.load(values["tally"])
        if self.best:
            self.best.load(values["best"])
            if (folder / BEST).exists() and distributed.is_main_process():
                self.best.path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / BEST, self.best.path)
        return dict(values)


class RestoreLosses(TrainerCallback):
    """Puts the training loss since its last point back: Trainer starts from zero when it begins."""

    def __init__(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        self._trainer, self._values = trainer, values["text_loss"]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        trainer: Any = self._trainer
        trainer._tr_loss += self._values[0]
        trainer._total_loss_scalar, trainer._globalstep_last_logged = self._values[1:]


def write_state(trainer: Any, gathered: CallbackState, folder: Path) -> None:
    """Fill ``folder`` with the state after the optimizer step just made; in every process of a distributed run."""
    values = gathered.values(trainer, done=False)
    if trainer.args.should_save:
        write_model(trainer.model, trainer.hooks, folder)
        gathered.write(folder, values)
        trainer.state.save_to_json(str(folder / TRAINER_STATE))
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))


def write_end_state(trainer: Any, gathered: CallbackState, values: Mapping[str, Any], folder: Path) -> None:
    """Fill ``folder`` with the end of training: the weights that were kept, and no optimizer."""
    write_model(trainer.model, trainer.hooks, folder)
    gathered.write(folder, values)
    trainer.state.save_to_json(str(folder / TRAINER_STATE))


def is_end_state(folder: Path) -> bool:
    """Whether the checkpoint stands for the end of training."""
    return bool(json.loads((folder / GATHERED).read_text(encoding="utf-8"))["done"])


def write_model(model: Any, hooks: Hooks, folder: Path) -> None:
    """The weights that train, and what the method keeps beside them."""
    save_file(sharding.trainable_weights(model), folder / WEIGHTS)
    if state := hooks.state(model):
        torch.save(state, folder / METHOD)


def read_weights(model: Any, hooks: Hooks, folder: Path) -> None:
    """Put weights and the method's state into a model that was made by the same plan."""
    if (folder / METHOD).exists():
        hooks.load_state(model, torch.load(folder / METHOD, map_location="cpu", weights_only=True))
    sharding.put_weights(model, load_file(folder / WEIGHTS))
