"""The plan: one run's validated, frozen settings, and its fingerprint. Imports no torch."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import schema
from harness.errors import ConfigFault
from harness.frozen import freeze
from harness.plan.effective import without_idle
from harness.plan.extensions import METHOD, MODEL

FINGERPRINT_DIGITS = 12

CONTINUE_FROM = "continue_from"  # of ``inputs``: the weights with which training begins

# What the templates' names meant in earlier records: the published texts. Fingerprints keep that meaning, so that an
# earlier run is never taken for one whose prompts end elsewhere.
PUBLISHED_TEMPLATES = {"lesson": "lesson_exact", "alpaca": "alpaca_exact"}
_TEMPLATE_NAMES = {exact: name for name, exact in PUBLISHED_TEMPLATES.items()}
_TEMPLATE_NAMES |= {name: f"{name}, border by tokenizer" for name in PUBLISHED_TEMPLATES}

NO_DPO: dict[str, Any] = {"beta": 0.1, "label_smoothing": 0.0}

DISTILLATION = ("teacher", "distill_temperature", "distill_weight")

# The plan has its own learning rate; the others change how a run is executed, not its result.
TRAINER_WITHOUT_EFFECT = ("learning_rate", "threads", "checkpoint_minutes", "checkpoint_steps", "on_oom", "log_every")

# Settings of the model, at the values at which they do nothing.
MODEL_DEFAULTS_WITHOUT_EFFECT = (("quantization", "none"), ("prune", 0.0))

# Likewise of the data; records that are older than these settings lack them.
DATA_DEFAULTS_WITHOUT_EFFECT: tuple[tuple[str, Any], ...] = (
    ("instruction", None),
    ("train_on", schema.TrainOn.last.value),
    ("group_by_prompt", True),
    ("options", None),
    ("class_weights", None),
)

NO_TASKS: dict[str, Any] = {
    "tasks": [], "include_path": None, "num_fewshot": None, "limit": None, "batch_size": 16, "chat_template": False,
    "bootstrap_iters": 1000,
}  # fmt: skip

NO_STOPPING: dict[str, Any] = {"patience": None, "min_change": 0.0}

NO_JUDGE: dict[str, Any] = {"model": None, "prompt": "", "grades": [], "template": "lesson", "batch_size": 16}

# What plans of earlier versions did where they lack a setting.
EARLIER: dict[str, dict[str, Any]] = {
    "data": {
        **dict(DATA_DEFAULTS_WITHOUT_EFFECT),
        "tokenize": "auto",
        "columns": {"options": None, "rejected": None, "weight": None, "keep": []},
    },
    "trainer": {
        "early_stopping": NO_STOPPING,
        "log_every": None,
        "continue_from": None,
        "neftune_alpha": None,
        "dpo": NO_DPO,
    },
    "scoring": {"template": None, "choices": {"by": "raw", "bins": 15}, "judge": NO_JUDGE, "lm_eval": NO_TASKS},
}


@dataclass(frozen=True)
class Plan:
    """One experiment: everything that has an effect on its result, and nothing else."""

    method: str
    settings: Mapping[str, Any]  # the method's sheet without the learning rate
    learning_rate: float
    model: schema.Model
    data: schema.Data
    trainer: schema.Trainer
    scoring: schema.Scoring
    seed: int
    inputs: Mapping[str, str]  # content hashes of local data and weights
    known_as: str | None = field(default=None, compare=False)  # fingerprint of a record made by earlier rules

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
        return plan_from_dict, (self.as_dict(), self.known_as)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all settings that have an effect; equal fingerprints are the same experiment."""
        return self.known_as or digest(effective_settings(self.as_dict()))

    @property
    def base_key(self) -> str:
        """Hash of what decides the weights of the base model as they are loaded."""
        own = [self.inputs[MODEL]] if MODEL in self.inputs else []
        return digest([effective_settings(self.as_dict())["model"], self.inputs.get("model"), *own])

    @property
    def protocol(self) -> str:
        """Hash of model, data and scoring: plans that share it share their baseline."""
        shared = effective_settings(self.as_dict())
        idle = (METHOD, CONTINUE_FROM)
        shared["inputs"] = {key: value for key, value in shared["inputs"].items() if key not in idle}
        weights = ("class_weights", "columns")  # of training; scores never see them
        columns = {key: name for key, name in shared["data"]["columns"].items() if key != "weight"}
        shared["data"] = {key: value for key, value in shared["data"].items() if key not in weights}
        shared["data"]["columns"] = columns
        return digest(
            {key: shared[key] for key in ("model", "data", "scoring", "inputs")} | {"seed": self.sampling_seed}
        )

    @property
    def sampling_seed(self) -> int | None:
        """Seed of sampled decoding; None for greedy decoding, which needs none."""
        return self.seed if self.scoring.generation.do_sample else None


@dataclass(frozen=True)
class BudgetFit:
    """How near a method comes to a budget, and the settings with which it does."""

    method: str
    quantity: str  # a setting of the node ``budget``
    wanted: float
    reached: float
    settings: Mapping[str, Any]  # of the method's sheet
    knob: str  # the one of them that was turned

    @property
    def off(self) -> float:
        """Distance from the budget as a share of it, negative below."""
        return self.reached / self.wanted - 1

    @property
    def words(self) -> str:
        """What was set, and how near it comes."""
        shown = " ".join(f"{self.method}.{key}={_brief(value)}" for key, value in self.settings.items())
        side = "above" if self.off > 0 else "below"
        near = "exactly" if self.off == 0 else f"{abs(self.off):.1%} {side}"
        return f"{shown} makes {self.reached:,.0f}, {near} budget.{self.quantity}={self.wanted:,.0f}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as the record keeps them."""
        return {
            "quantity": self.quantity,
            "wanted": self.wanted,
            "reached": self.reached,
            "off": self.off,
            "settings": plain(self.settings),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _budget_fit, (self.method, self.as_dict(), self.knob)


def _budget_fit(method: str, kept: Mapping[str, Any], knob: str) -> BudgetFit:
    settings = MappingProxyType(dict(kept["settings"]))
    return BudgetFit(method, kept["quantity"], kept["wanted"], kept["reached"], settings, knob)


def _brief(value: Any) -> str:
    return json.dumps(plain(value)) if isinstance(value, Mapping) else str(value)


@dataclass(frozen=True)
class Options:
    """How a command runs its plans; nothing here changes a result."""

    stage: schema.Stage
    runs_dir: Path
    rerun: bool
    keep: schema.Keep
    run: str | None
    adapter_paths: tuple[str, ...]
    prompt: str | None
    input: str
    note: str | None
    tags: tuple[str, ...]
    tracker: schema.Tracker
    export: schema.Export
    push: schema.Push
    diff: schema.DiffSettings
    archive: schema.ArchiveSettings
    import_results: schema.ImportSettings
    bundle: schema.BundleSettings
    chat: schema.ChatSettings
    serve: schema.ServeSettings
    confirm: bool
    report: schema.ReportSettings
    select: schema.SelectSettings
    refine: schema.RefineSettings
    claim: schema.ClaimSettings
    plan: schema.PlanSettings
    planned_dtype: str | None  # what model.dtype means on plan.device; None: as on this machine
    threads: int | None
    checkpoint_minutes: float | None
    checkpoint_steps: int | None
    halve_on_oom: bool
    sweep_name: str | None
    max_failures: int | None
    max_hours: float | None
    prune: schema.Prune
    halving: schema.Halving
    pause_after: int | None
    retry: schema.Retry
    reuse: schema.Reuse
    rate_rule: str | None  # how the learning rate was chosen; None if it was given
    watch: bool | None
    scale: schema.Scale | None
    paper: schema.Paper
    budget: BudgetFit | None = None  # how the method's size was set; None if it was given


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
    text = json.dumps(_unsigned_zeros(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def _unsigned_zeros(value: Any) -> Any:
    """The value with 0.0 for -0.0, which is another text but not another number."""
    if isinstance(value, Mapping):
        return {key: _unsigned_zeros(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unsigned_zeros(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def effective_settings(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan, as a record keeps it, without settings that have no effect beside the others."""
    trainer = {key: value for key, value in plan["trainer"].items() if key not in TRAINER_WITHOUT_EFFECT}
    if trainer["max_steps"] is not None:
        del trainer["epochs"]
    if trainer["objective"] != schema.Objective.dpo.value:
        trainer.pop("dpo", None)
    if trainer.get("neftune_alpha") is None:
        trainer.pop("neftune_alpha", None)
    trainer.pop("continue_from", None)  # the content of its weights is hashed
    if (trainer.get("early_stopping") or NO_STOPPING)["patience"] is None:
        trainer.pop("early_stopping", None)
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
    if scoring.get("template") in (None, plan["data"]["template"]):
        scoring.pop("template", None)  # as in training
    if scoring["forgetting"] is None:
        del scoring["forgetting_limit"]
    # config_only serves to count parameters without weights; a run never reads it.
    model = {key: value for key, value in plan["model"].items() if key != "config_only"}
    # The data's suggestions for scoring have an effect only through the settings of scoring.
    data = {key: value for key, value in plan["data"].items() if key not in ("metrics", "max_new_tokens", "tokenize")}
    data["template"] = _TEMPLATE_NAMES.get(data["template"], data["template"])
    data = {key: value for key, value in data.items() if (key, value) not in DATA_DEFAULTS_WITHOUT_EFFECT}
    if data["format"] != schema.RowFormat.messages.value:
        data.pop("train_on", None)  # such rows have one turn
    used = without_idle({**plan, "model": model, "data": data, "trainer": trainer, "scoring": scoring})
    model = {key: value for key, value in used["model"].items() if (key, value) not in MODEL_DEFAULTS_WITHOUT_EFFECT}
    return used | {"model": model}


def plan_from_dict(kept: Mapping[str, Any], known_as: str | None = None) -> Plan:
    """The plan that a record contains.

    Args:
        known_as: the record's fingerprint, which the plan keeps: earlier versions computed it by other rules.

    Raises:
        ConfigFault: a version of the harness with other settings wrote the record.
    """
    nodes = {"model": schema.Model, "data": schema.Data, "trainer": schema.Trainer, "scoring": schema.Scoring}
    try:
        typed: dict[str, Any] = {
            name: freeze(
                OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(node), EARLIER.get(name, {}), kept[name]))
            )
            for name, node in nodes.items()
        }
        rest = {name: kept[name] for name in ("method", "learning_rate", "seed")}
        maps: dict[str, Any] = {name: MappingProxyType(dict(kept[name])) for name in ("settings", "inputs")}
        plan = Plan(**rest, **maps, **typed)
        return plan if known_as in (None, plan.fingerprint) else replace(plan, known_as=known_as)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigFault(
            f"another version of the harness wrote this record's plan ({reason}); run its command again"
        ) from error


def optimizer_steps(trainer: schema.Trainer, rows: int) -> int:
    """Optimizer steps of a run over so many training rows."""
    if trainer.max_steps is not None:
        return trainer.max_steps
    return math.ceil(trainer.epochs * epoch_steps(trainer, rows))


def epoch_steps(trainer: schema.Trainer, rows: int) -> int:
    """Optimizer steps in which a run sees so many training rows once."""
    batches = math.ceil(rows / (trainer.batch_size * trainer.parallel.processes))
    return math.ceil(batches / trainer.gradient_accumulation_steps)


def rows_per_step(trainer: schema.Trainer) -> int:
    """Rows of one optimizer step, over all processes."""
    return trainer.batch_size * trainer.gradient_accumulation_steps * trainer.parallel.processes
