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

from harness import parallel, watch

WEIGHTS, METHOD, GATHERED, BEST = "trainable.safetensors", "method.pt", "gathered.json", "best.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name that Trainer looks for
ADALORA = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what its rank allocator remembers, by parameter


@dataclass
class Gathered:
    """What accompanies training and is no part of Trainer's own state."""

    validate: watch.Validate
    best: watch.KeepBest | None
    clock: watch.Clock
    tally: watch.Tally

    def values(self, trainer: Any, done: bool) -> dict[str, Any]:
        """What ``write`` keeps; all processes of a distributed run must ask for it."""
        losses = parallel.gathered(float(trainer._tr_loss))  # Trainer logs their mean
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
            if (folder / BEST).exists() and parallel.leads():
                self.best.path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / BEST, self.best.path)
        return dict(values)


class Losses(TrainerCallback):
    """Puts the training loss since its last point back: Trainer starts from zero when it begins."""

    def __init__(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        self._trainer, self._values = trainer, values["text_loss"]

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        trainer: Any = self._trainer
        trainer._tr_loss += self._values[0]
        trainer._total_loss_scalar, trainer._globalstep_last_logged = self._values[1:]


def write(trainer: Any, gathered: Gathered, folder: Path) -> None:
    """Fill ``folder`` with the state after the optimizer step just made; in every process of a distributed run."""
    values = gathered.values(trainer, done=False)
    if trainer.args.should_save:
        write_model(trainer.model, folder)
        gathered.write(folder, values)
        trainer.state.save_to_json(str(folder / TRAINER_STATE))
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    trainer._save_rng_state(str(folder))


def write_done(trainer: Any, gathered: Gathered, values: Mapping[str, Any], folder: Path) -> None:
    """Fill ``folder`` with the end of training: the weights that were kept, and no optimizer."""
    write_model(trainer.model, folder)
    gathered.write(folder, values)
    trainer.state.save_to_json(str(folder / TRAINER_STATE))


def is_done(folder: Path) -> bool:
    """Whether the checkpoint stands for the end of training."""
    return bool(json.loads((folder / GATHERED).read_text(encoding="utf-8"))["done"])


def write_model(model: Any, folder: Path) -> None:
    """The weights that train, and what the method keeps beside them."""
    save_file(watch.trainable(model), folder / WEIGHTS)
    if state := _method_state(model):
        torch.save(state, folder / METHOD)


def read_model(model: Any, folder: Path) -> None:
    """Put weights and the method's state into a model that was made by the same plan."""
    if (folder / METHOD).exists():
        _load_method_state(model, torch.load(folder / METHOD, map_location="cpu", weights_only=True))
    watch.put(model, load_file(folder / WEIGHTS))


def _method_state(model: Any) -> dict[str, Any]:
    name, tuner = str(model.active_adapter), model.base_model
    config = model.peft_config[name]
    if hasattr(tuner, "rankallocator"):
        kept = {key: getattr(tuner.rankallocator, key) for key in ADALORA}
        return {"rank_pattern": config.rank_pattern, "allocator": kept}
    if getattr(config, "projected", False):
        return {"places": tuner.places(name)}
    return {}


def _load_method_state(model: Any, state: Mapping[str, Any]) -> None:
    name, tuner = str(model.active_adapter), model.base_model
    if "allocator" in state:
        model.peft_config[name].rank_pattern = state["rank_pattern"]
        weights = dict(tuner.model.named_parameters())
        for key, values in state["allocator"].items():
            placed = {each: value.to(weights[each].device) for each, value in values.items()}
            setattr(tuner.rankallocator, key, placed)
    if "places" in state:
        tuner.fix_places(name, state["places"])
