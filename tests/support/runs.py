"""Small runs for tests: rows of words, plans, commands in this process, and one plan prepared for training."""

import contextlib
import functools
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from harness.adapters.save_load import adapter_writer
from harness.data.collate import collate
from harness.data.tokenize import TokenizedRow
from harness.models.base import Base, load_base
from harness.pipeline import steps, tune
from harness.pipeline.cache import ProcessCache
from harness.pipeline.values import Attached, AuditedRows
from harness.plan.read import read_config
from harness.plan.spec import Options, Plan
from harness.record import store
from harness.training import train as training_train
from harness.training.checkpoints import CheckpointSettings
from tests.support.configs import compose

FIRST_SET = (
    *("full", "partial", "lora", "loha", "lokr", "adalora", "ia3"),
    *("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"),
)
LORA_VARIANTS = {
    "dora": ["lora.use_dora=true"],
    "rslora": ["lora.use_rslora=true"],
    "pissa": ["lora.init_lora_weights=pissa"],
    "olora": ["lora.init_lora_weights=olora"],
}
# Overrides of each method and LoRA variant, by a short name.
CASES: dict[str, list[str]] = {name: [f"peft={name}"] for name in FIRST_SET} | {
    name: ["peft=lora", *overrides] for name, overrides in LORA_VARIANTS.items()
}
THINGS = ("sky", "grass", "coal", "snow", "blood", "sun", "sea", "leaf", "night", "rose")
COLORS = ("blue", "green", "black", "white", "red", "yellow")


def write_rows(folder: Path, train_rows: int = 24, others: int = 6, constant: bool = False) -> Path:
    """Rows of an instruction, an input and a color; ``constant`` makes all texts equally long."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for name, count in (("train", train_rows), ("validation", others), ("test", others)):
        rows = []
        for _ in range(count):
            thing = f"{number:04d}" if constant else f"{THINGS[number % 10]} {number}" + " of it" * (number % 4)
            output = "abcd" if constant else COLORS[number % 6]
            rows.append({"instruction": "Colour?", "input": thing, "output": output})
            number += 1
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def overrides(model: Path, rows: Path, runs_dir: Path) -> list[str]:
    """The overrides of a run of two steps that takes well under a second."""
    return [
        *(f"model.path={model}", "model.name=random", f"data.path={rows}", "data=alpaca"),
        "data.splits={train: train.jsonl, validation: validation.jsonl, test: test.jsonl}",
        *(f"runs_dir={runs_dir}", "data.max_tokens=128", "scoring.forgetting=null"),
        *("scoring.metrics=[exact_match]", "scoring.generation.max_new_tokens=4"),
        *("trainer.max_steps=2", "trainer.batch_size=8", "trainer.threads=1", "trainer.evaluations=1"),
    ]


@functools.cache
def plan_of(*words: str) -> tuple[Plan, Options]:
    """Plan and options of a command; cached, because composing takes longer than such a run."""
    return read_config(compose(*words))


@dataclass(frozen=True)
class Outcome:
    """Exit code and console output of a command."""

    code: int
    out: str
    err: str


def command(*words: str) -> Outcome:
    """``python -m harness <words>`` in this process, so that imports are paid for once."""
    from hydra.core.global_hydra import GlobalHydra

    from harness.__main__ import main

    out, err, logger = io.StringIO(), io.StringIO(), logging.getLogger("harness")
    before = (list(logger.handlers), logger.level, logger.propagate)
    GlobalHydra.instance().clear()
    store.say_once.cache_clear()  # a command is a process of its own
    code: Any = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", ["harness", *words]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        finally:
            GlobalHydra.instance().clear()
            logger.handlers, logger.level, logger.propagate = before
    return Outcome(int(code or 0) if not isinstance(code, str) else 1, out.getvalue(), err.getvalue())


def records_of(runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Records by fingerprint, each checked against the published schema."""
    found = {kept["fingerprint"]: kept for kept in store.all_records(runs_dir)}
    for kept in found.values():
        assert store.schema_faults(kept) == []
    return found


@functools.cache
def loaded(path: Path) -> Base:
    """The base model in a folder, loaded once for all tests that do not change it."""
    return load_base(plan_of(f"model.path={path}")[0].model)


@dataclass
class Prepared:
    """One plan, ready to train."""

    plan: Plan
    base: Base
    rows: AuditedRows
    attached: Attached
    write: Callable[[Path], None]  # the adapter's writer, made before training

    @property
    def model(self) -> Any:
        return self.attached.model

    def train(
        self, folder: Path, checkpoint: CheckpointSettings | None = None, **observers: Any
    ) -> training_train.TrainingResult:
        inputs = tune.training_inputs(self.base, self.rows)
        return training_train.train(
            self.model, self.plan, inputs, folder, checkpoint, training_train.Observers(**observers)
        )

    def trainable(self) -> dict[str, torch.Tensor]:
        """Copies of the trainable weights."""
        named = self.model.named_parameters()
        return {name: weight.detach().clone() for name, weight in named if weight.requires_grad}


def prepared(model: Path, rows: Path, runs_dir: Path, *words: str, base: Base | None = None) -> Prepared:
    """A plan, its tokenized rows and its method on a fork of the base, as in a run."""
    made, _ = plan_of(*overrides(model, rows, runs_dir), *words)
    return ready(made, base or loaded(model), runs_dir)


def ready(plan: Plan, base: Base, runs_dir: Path) -> Prepared:
    """The plan made ready to train on this base."""
    audited = steps.tokenize(plan, ProcessCache(), base)
    attached = tune.attach(plan, base, audited)
    return Prepared(plan, base, audited, attached, adapter_writer(attached.model, runs_dir / "scratch"))


class Cut(Exception):
    """What ends a training in its middle."""


def cut_at(last: int | None) -> Callable[[int, dict[str, Any]], None]:
    """A log that ends the training with ``Cut`` when the loss of step ``last`` arrives; None: it does not."""

    def log(step: int, values: dict[str, Any]) -> None:
        if step == last:
            raise Cut

    return log


def disturbed(model: Any) -> Any:
    """The model with noise added to its trainable weights, so that its adapter has an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def logits_of(model: Any, examples: Sequence[TokenizedRow]) -> torch.Tensor:
    """Logits at the positions of the text (b, t, v), rows padded on the right."""
    batch = collate(examples, 0, "right")
    with torch.no_grad():
        logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[:, -batch["input_ids"].shape[1] :]
