"""From a composed config to a plan: one run's validated, frozen settings, and its fingerprint.

``OmegaConf`` ends here: ``read`` turns the composed ``DictConfig`` into dataclasses, and nothing downstream
touches it. This module imports no torch, so that ``--help`` and every error are instant.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import checks, keys, schema
from harness.errors import ConfigFault, raise_together
from harness.settings import freeze

FINGERPRINT_DIGITS = 12
DISTILLATION = ("teacher", "distill_temperature", "distill_weight")
# The plan's own learning rate stands beside; the others change how a run is carried out, not what it does.
IDLE_IN_TRAINER = ("learning_rate", "threads", "checkpoint_minutes", "checkpoint_steps", "on_oom")
UNUSED = (("quantization", "none"), ("prune", 0.0))  # settings of the model at which nothing happens


@dataclass(frozen=True)
class Plan:
    """One experiment: everything that has an effect on its result, and nothing else."""

    method: str
    settings: Mapping[str, Any]  # the method's sheet, less the learning rate, which stands below
    learning_rate: float
    model: schema.Model
    data: schema.Data
    trainer: schema.Trainer
    scoring: schema.Scoring
    seed: int
    inputs: Mapping[str, str]  # content hashes of local data and weights

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the record keeps them."""
        return {
            "method": self.method,
            "settings": plain(self.settings),
            "learning_rate": self.learning_rate,
            "model": plain(self.model),
            "data": plain(self.data),
            "trainer": plain(self.trainer),
            "scoring": plain(self.scoring),
            "seed": self.seed,
            "inputs": dict(self.inputs),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied in the shape that records keep."""
        return rebuild, (self.as_dict(),)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what has an effect; equal fingerprints are the same experiment."""
        return digest(effective(self.as_dict()))

    @property
    def protocol(self) -> str:
        """Hash of model, data and scoring: plans that share it share their baseline."""
        shared = effective(self.as_dict())
        return digest(
            {key: shared[key] for key in ("model", "data", "scoring", "inputs")} | {"seed": self.sampling_seed}
        )

    @property
    def sampling_seed(self) -> int | None:
        """Seed of sampled decoding; None for greedy, which needs none."""
        return self.seed if self.scoring.generation.do_sample else None


@dataclass(frozen=True)
class Options:
    """How a command runs its plans; none of it changes a result."""

    stage: schema.Stage
    runs_dir: Path
    rerun: bool
    run: str | None
    prompt: str | None
    input: str
    tracker: schema.Tracker
    export: schema.Export
    threads: int | None
    checkpoint_minutes: float | None
    checkpoint_steps: int | None
    halve_on_oom: bool
    sweep_name: str | None
    max_failures: int | None
    retry: schema.Retry
    watch: bool | None


def read(composed: DictConfig) -> tuple[Plan, Options]:
    """The one boundary between configuration and code.

    Raises:
        ConfigFault: unknown key, wrong type, missing value, or settings that contradict each other; all
            faults that can be seen without weights are listed together.
    """
    config = _typed(composed)
    raise_together(checks.faults(config))
    return _plan(config), _options(config)


def plain(value: Any) -> Any:
    """Dataclasses, enums and paths as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """Short hash of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def effective(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without settings that other settings have made idle."""
    trainer = {key: value for key, value in plan["trainer"].items() if key not in IDLE_IN_TRAINER}
    if trainer["max_steps"] is not None:
        del trainer["epochs"]
    trainer["parallel"] = {key: trainer["parallel"][key] for key in ("strategy", "processes", "deepspeed")}
    if trainer["parallel"]["strategy"] == schema.Strategy.none.value:
        del trainer["parallel"]
    if trainer["objective"] != schema.Objective.distill.value:
        trainer = {key: value for key, value in trainer.items() if key not in DISTILLATION}
    scoring = dict(plan["scoring"])
    if not scoring["generation"]["do_sample"]:
        scoring["generation"] = {
            key: value for key, value in scoring["generation"].items() if key not in ("temperature", "top_p")
        }
    if scoring["forgetting"] is None:
        del scoring["forgetting_limit"]
    # Counting parameters without weights is what config_only is for; a run never looks at it.
    model = {key: value for key, value in plan["model"].items() if key != "config_only"}
    model = {key: value for key, value in model.items() if (key, value) not in UNUSED}
    # What the data suggests for scoring acts through the scoring that took it up.
    data = {key: value for key, value in plan["data"].items() if key not in ("metrics", "max_new_tokens")}
    return {**plan, "model": model, "data": data, "trainer": trainer, "scoring": scoring}


def _typed(composed: DictConfig) -> schema.Config:
    """The composed values as dataclasses; strays such as ``++stray=1`` are rejected."""
    raw = OmegaConf.to_container(composed, resolve=False)
    deleted = [key for key in get_type_hints(schema.Config) if key not in composed]
    missing = deleted + [key for key, value in _leaves(raw) if value == "???"]
    raise_together([f"{key} has no value; set it on the command line: {key}=..." for key in missing])
    try:
        if _as_declared(composed, schema.Config):
            return OmegaConf.to_object(composed)  # type: ignore[return-value]
        # A fresh schema refuses what the composed one was told to take in. Twenty times slower.
        values = OmegaConf.to_container(composed, resolve=True)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema.Config), values))
    except OmegaConfBaseException as error:
        raise ConfigFault(keys.refused(error)) from error
    if not isinstance(config, schema.Config):
        raise ConfigFault(f"the composed configuration is a {type(config).__name__}, not a harness config")
    return config


def _as_declared(node: Any, kind: type) -> bool:
    """Whether this node and those below have the schema's types and keys, so that each value was checked when set."""
    if OmegaConf.get_type(node) is not kind:
        return False
    kinds = get_type_hints(kind)
    return set(node) == set(kinds) and all(
        _as_declared(node._get_node(name), below)
        for name, below in kinds.items()
        if isinstance(below, type) and is_dataclass(below)
    )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _plan(config: schema.Config) -> Plan:
    sheet = plain(getattr(config, config.peft.method))
    own_rate = sheet.pop("learning_rate")
    rate = config.trainer.learning_rate if config.trainer.learning_rate is not None else own_rate
    return Plan(
        method=config.peft.method,
        settings=MappingProxyType(sheet),
        learning_rate=float(rate),
        model=freeze(config.model),
        data=freeze(config.data),
        trainer=freeze(config.trainer),
        scoring=freeze(config.scoring),
        seed=config.seed,
        inputs=MappingProxyType(_inputs(config)),
    )


def _inputs(config: schema.Config) -> dict[str, str]:
    """Content hashes, so that an edited file is another experiment."""
    from harness import data, weights

    found = {"data": data.file_digest(config.data), "model": weights.digest(config.model)}
    if config.scoring.forgetting is not None:
        found["forgetting"] = data.text_digest(config.scoring.forgetting)
    if config.trainer.objective is schema.Objective.distill:
        from harness import teachers

        found["teacher"] = teachers.digest(str(config.trainer.teacher), Path(config.runs_dir).expanduser().absolute())
    return {key: value for key, value in found.items() if value is not None}


def _options(config: schema.Config) -> Options:
    return Options(
        stage=config.stage,
        runs_dir=Path(config.runs_dir).expanduser().absolute(),
        rerun=config.rerun,
        run=config.run,
        prompt=config.prompt,
        input=config.input or "",
        tracker=freeze(config.tracker),
        export=freeze(config.export),
        threads=config.trainer.threads,
        checkpoint_minutes=config.trainer.checkpoint_minutes,
        checkpoint_steps=config.trainer.checkpoint_steps,
        halve_on_oom=config.trainer.on_oom is schema.OnOom.halve,
        sweep_name=config.sweep.name,
        max_failures=config.sweep.max_failures,
        retry=config.sweep.retry,
        watch=config.sweep.watch,
    )


def rebuild(kept: Mapping[str, Any]) -> Plan:
    """The plan that a record keeps; its fingerprint is the record's.

    Raises:
        ConfigFault: the record was made by a harness with other settings.
    """
    nodes = {"model": schema.Model, "data": schema.Data, "trainer": schema.Trainer, "scoring": schema.Scoring}
    try:
        typed: dict[str, Any] = {
            name: freeze(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(node), kept[name])))
            for name, node in nodes.items()
        }
        rest = {name: kept[name] for name in ("method", "learning_rate", "seed")}
        maps: dict[str, Any] = {name: MappingProxyType(dict(kept[name])) for name in ("settings", "inputs")}
        return Plan(**rest, **maps, **typed)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigFault(
            f"the record's plan is not of this version of the harness ({reason}); run it again"
        ) from error
