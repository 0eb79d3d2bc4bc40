"""Faults of a typed configuration that can be seen without weights or rows.

Each check yields sentences that name key, value and remedy. Types are already right when these run.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.config.schema import (
    SHEETS,
    Config,
    ModelSource,
    Objective,
    Quantization,
    Stage,
    Template,
    Tracking,
)
from harness.data.checks import data_faults
from harness.errors import above, at_least, brief, fraction, one_of
from harness.frozen import ConfigNode
from harness.methods import fields
from harness.methods.registry import METHODS, traits_of
from harness.plan import parallel_checks
from harness.scoring.catalog import SCORES, TOKENIZE, metric_names


def config_faults(config: Config) -> list[str]:
    """Every fault of this configuration, in the order of its groups."""
    if config.peft.method not in SHEETS:
        return [f"peft.method={config.peft.method} is unknown; choose one of {', '.join(SHEETS)}"]
    sheet = getattr(config, config.peft.method)
    used = {key: node for key, node in vars(config).items() if key not in SHEETS} | {config.peft.method: sheet}
    unsound = dict(fault for key, node in used.items() for fault in value_faults(key, node))
    parts = (
        _model(config),
        data_faults(config.data),
        _trainer(config),
        _scoring(config),
        _tracker(config),
        _places(config),
    )
    found = [fault for part in parts for fault in part]
    found += at_least("sweep.max_failures", config.sweep.max_failures, 0)
    found += fields.field_faults(config.peft.method, sheet)
    found += METHODS[config.peft.method].check(sheet)
    # A value that is no number at all needs no second word about its size.
    rest = [fault for fault in found if fault.partition("=")[0] not in unsound]
    return [*unsound.values(), *dict.fromkeys(rest)]


def _model(config: Config) -> Iterator[str]:
    model = config.model
    if model.source is not ModelSource.package and not model.path:
        yield f"model.path is empty; model.source={model.source.value} needs it"
    if model.source is ModelSource.package and not model.packages:
        yield "model.packages is empty; model.source=package needs the distributions that carry the weights"
    if model.trust_remote_code and model.source is not ModelSource.hub:
        yield "model.trust_remote_code=true has a meaning for model.source=hub only; set it to false"
    yield from fraction("model.prune", model.prune)
    if model.prune and model.quantization is not Quantization.none:
        yield (
            f"model.prune={model.prune} needs the numbers of the base weights, and model.quantization="
            f"{model.quantization.value} keeps them in a few bits; set one of the two"
        )
    yield from _quantisation(config)


def _quantisation(config: Config) -> Iterator[str]:
    """Some methods cannot work over weights in 4 or 8 bits, most because they need their numbers."""
    kind, method = config.model.quantization, config.peft.method
    if kind is Quantization.none:
        return
    from harness.methods.registry import why_unquantized

    why = why_unquantized(method, vars(getattr(config, method)), kind.value)
    if why:
        start = f" lora.init_lora_weights={config.lora.init_lora_weights}" if method == "lora" else ""
        start = f" library.type={config.library.type}" if method == "library" else start
        yield (
            f"peft={method}{start} {why}; model.quantization={kind.value} cannot be used with it: set "
            "model.quantization=none, or choose another method"
        )


def _places(config: Config) -> Iterator[str]:
    """Paths that no file system could hold, and a place for records that cannot be written."""
    paths = {"runs_dir": config.runs_dir, "data.path": config.data.path, "model.path": config.model.path}
    paths["scoring.forgetting"] = config.scoring.forgetting
    paths["export.dir"] = config.export.dir
    if config.tracker.name is not Tracking.none:
        paths["tracker.dir"] = config.tracker.dir
    unfit = [fault for key, path in paths.items() if path for fault in path_faults(key, path)]
    yield from unfit
    if not config.runs_dir:
        yield "runs_dir is empty; name the folder for records, e.g. runs_dir=runs"
    elif not unfit and is_text(config.runs_dir):
        yield from unwritable_folder(config.runs_dir, config.stage)


def _trainer(config: Config) -> Iterator[str]:
    trainer = config.trainer
    yield from above("trainer.epochs", trainer.epochs, 0)
    yield from at_least("trainer.max_steps", trainer.max_steps, 1)
    yield from at_least("trainer.batch_size", trainer.batch_size, 1)
    yield from at_least("trainer.gradient_accumulation_steps", trainer.gradient_accumulation_steps, 1)
    yield from above("trainer.learning_rate", trainer.learning_rate, 0)
    yield from at_least("trainer.weight_decay", trainer.weight_decay, 0)
    yield from fraction("trainer.warmup_share", trainer.warmup_share)
    yield from above("trainer.max_grad_norm", trainer.max_grad_norm, 0)
    yield from at_least("trainer.evaluations", trainer.evaluations, 0)
    yield from at_least("trainer.threads", trainer.threads, 1)
    yield from at_least("trainer.checkpoint_minutes", trainer.checkpoint_minutes, 0)
    yield from at_least("trainer.checkpoint_steps", trainer.checkpoint_steps, 1)
    if not 0 <= config.seed < 2**32:
        yield f"seed={config.seed} is out of range; use a whole number from 0 to {2**32 - 1}"
    if trainer.keep_best and trainer.evaluations < 1:
        yield "trainer.keep_best=true needs trainer.evaluations of at least 1, or set trainer.keep_best=false"
    yield from _checkpointing(config)
    yield from _distillation(config)
    yield from parallel_checks.parallel_faults(config)
    if trainer.objective is Objective.lesson and config.data.template is not Template.lesson:
        yield (
            f"trainer.objective=lesson reproduces the lesson's own prompt, not data.template="
            f"{config.data.template.value}; set data.template=lesson"
        )


def _checkpointing(config: Config) -> Iterator[str]:
    method = config.peft.method
    traits = traits_of(method, vars(getattr(config, method)))
    if config.trainer.gradient_checkpointing and not traits.checkpointing:
        yield f"peft={method} {traits.why_no_checkpointing}; set trainer.gradient_checkpointing=false"


def _distillation(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.objective is not Objective.distill:
        if trainer.teacher is not None:
            yield (
                f"trainer.teacher={brief(trainer.teacher)} has no effect without trainer.objective=distill; set that, "
                "or trainer.teacher=null"
            )
        return
    if not trainer.teacher:
        yield (
            "trainer.teacher=null but trainer.objective=distill needs one; name a model folder, a hub name or the "
            "fingerprint of a run"
        )
    if METHODS[config.peft.method].hooks.own_loss:
        yield (
            f"peft={config.peft.method} trains on a loss of its own, which trainer.objective=distill cannot mix; use "
            "completion"
        )
    yield from above("trainer.distill_temperature", trainer.distill_temperature, 0)
    yield from fraction("trainer.distill_weight", trainer.distill_weight, closed=True)


def _scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    yield from one_of("scoring.split", scoring.split, ("test", "validation"))
    yield from one_of("scoring.tokenize", scoring.tokenize, tuple(TOKENIZE))
    for metric in scoring.metrics:
        yield from one_of("scoring.metrics", metric, metric_names())
        if metric in SCORES and SCORES[metric].needs == "targets" and config.data.columns.target is None:
            yield (
                f"scoring.metrics holds {metric} but data.columns.target is null; name the column with the short "
                f"answer, or set scoring.metrics without {metric}"
            )
    generation = scoring.generation
    yield from at_least("scoring.generation.batch_size", generation.batch_size, 1)
    yield from at_least("scoring.generation.max_new_tokens", generation.max_new_tokens, 1)
    yield from at_least("scoring.loss_batch_size", scoring.loss_batch_size, 1)
    yield from at_least("scoring.forgetting_limit", scoring.forgetting_limit, 1)
    if generation.do_sample:
        yield from above("scoring.generation.temperature", generation.temperature, 0)
        if not 0 < generation.top_p <= 1:
            yield f"scoring.generation.top_p={generation.top_p} must be above 0 and at most 1"


def _tracker(config: Config) -> Iterator[str]:
    if config.tracker.name is Tracking.wandb:
        yield from one_of("tracker.mode", config.tracker.mode, ("offline", "online"))


NAME_BYTES = 255  # of one file name, on every common file system


PATH_BYTES = 4095  # of a whole path, on Linux


def value_faults(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Key and fault of every number that is not finite or too large, and of every text that is no text."""
    if isinstance(value, ConfigNode):
        for name, item in vars(value).items():
            yield from value_faults(f"{key}.{name}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from value_faults(key, name)
            yield from value_faults(f"{key}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from value_faults(f"{key}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{key}={value} must be a finite number"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"{key}={brief(str(value))} does not fit into 64 bits; use a smaller number"
    elif isinstance(value, str) and not is_text(value):
        yield key, f"{key}={brief(ascii(value))} holds bytes that are no UTF-8 text; write it in UTF-8, without NUL"


def is_text(value: str) -> bool:
    """Whether the text can be encoded, hashed and passed to the file system."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:  # the shell passed bytes that are not UTF-8
        return False


def path_faults(key: str, path: str) -> Iterator[str]:
    """Why no file can have this name, whatever is on the disk."""
    if not is_text(path):  # said by ``faults``
        return
    if any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
        yield f"{key}={brief(path)} has a part of more than {NAME_BYTES} bytes; use a shorter name"
    elif len(path.encode()) > PATH_BYTES:
        yield f"{key}={brief(path)} has more than {PATH_BYTES} bytes; use a shorter path"
    if path.startswith("~") and os.path.expanduser(path) == path:
        yield f"{key}={brief(path)} names the home of an unknown user; write the path out"


def unwritable_folder(runs_dir: str, stage: Stage) -> Iterator[str]:
    """Why records cannot be made there; stages that only read need no more than a folder."""
    wanted = Path(runs_dir).expanduser().absolute()
    place = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if not place.is_dir():
        yield f"runs_dir={runs_dir} cannot be made: {place} is no folder; name another place"
    elif stage in (Stage.run, Stage.report, Stage.score) and not os.access(place, os.W_OK | os.X_OK):
        yield f"runs_dir={runs_dir} cannot be written: no permission in {place}; name another place"
