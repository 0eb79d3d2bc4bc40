"""Faults of a typed configuration that can be seen without weights or rows.

Each check yields sentences that name key, value and remedy. Types are already right when these run.
"""

from collections.abc import Iterator

from harness import parallel, sheet_checks, sound
from harness.keys import brief
from harness.schema import SHEETS, Config, Objective, Quantization, RowFormat, Source, Template, Tracking
from harness.sound import above, at_least, one_of, share

METRICS = ("exact_match", "names_target", "token_f1", "rouge_l", "chrf", "bleu")
TOKENIZERS = ("zh", "char", "jieba", "13a")


def faults(config: Config) -> list[str]:
    """Every fault of this configuration, in the order of its groups."""
    if config.peft.method not in SHEETS:
        return [f"peft.method={config.peft.method} is unknown; choose one of {', '.join(SHEETS)}"]
    sheet = getattr(config, config.peft.method)
    used = {key: node for key, node in vars(config).items() if key not in SHEETS} | {config.peft.method: sheet}
    unsound = dict(fault for key, node in used.items() for fault in sound.faults(key, node))
    parts = (_model(config), _data(config), _trainer(config), _scoring(config), _tracker(config), _places(config))
    found = [fault for part in parts for fault in part]
    found += at_least("sweep.max_failures", config.sweep.max_failures, 0)
    found += sheet_checks.fields(config.peft.method, vars(sheet))
    found += sheet_checks.whole(config)
    # A value that is no number at all needs no second word about its size.
    rest = [fault for fault in found if fault.partition("=")[0] not in unsound]
    return [*unsound.values(), *dict.fromkeys(rest)]


def _model(config: Config) -> Iterator[str]:
    model = config.model
    if model.source is not Source.package and not model.path:
        yield f"model.path is empty; model.source={model.source.value} needs it"
    if model.source is Source.package and not model.packages:
        yield "model.packages is empty; model.source=package needs the distributions that carry the weights"
    if model.trust_remote_code and model.source is not Source.hub:
        yield "model.trust_remote_code=true has a meaning for model.source=hub only; set it to false"
    yield from share("model.prune", model.prune)
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
    from harness import methods

    why = methods.unquantised(method, vars(getattr(config, method)), kind)
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
    unfit = [fault for key, path in paths.items() if path for fault in sound.path_faults(key, path)]
    yield from unfit
    if not config.runs_dir:
        yield "runs_dir is empty; name the folder for records, e.g. runs_dir=runs"
    elif not unfit and sound.is_text(config.runs_dir):
        yield from sound.unwritable(config.runs_dir, config.stage)


def _data(config: Config) -> Iterator[str]:
    data = config.data
    for name in ("messages",) if data.format is RowFormat.messages else ("instruction", "output"):
        if not getattr(data.columns, name):
            yield f"data.columns.{name}=null but data.format={data.format.value} needs it; name the column"
    if not data.path:
        yield "data.path is empty; name a file, a folder or a data set on the hub, e.g. data.path=rows.jsonl"
    yield from share("data.fractions.validation", data.fractions.validation)
    yield from share("data.fractions.test", data.fractions.test)
    if max(data.fractions.validation, data.fractions.test) < 1 <= data.fractions.validation + data.fractions.test:
        yield "data.fractions.validation + data.fractions.test leave no training rows; lower them"
    for split, limit in vars(data.limits).items():
        if not split.startswith("_"):
            yield from at_least(f"data.limits.{split}", limit, 1)
    yield from at_least("data.max_tokens", data.max_tokens, 4)


def _trainer(config: Config) -> Iterator[str]:
    trainer = config.trainer
    yield from above("trainer.epochs", trainer.epochs, 0)
    yield from at_least("trainer.max_steps", trainer.max_steps, 1)
    yield from at_least("trainer.batch_size", trainer.batch_size, 1)
    yield from at_least("trainer.gradient_accumulation_steps", trainer.gradient_accumulation_steps, 1)
    yield from above("trainer.learning_rate", trainer.learning_rate, 0)
    yield from at_least("trainer.weight_decay", trainer.weight_decay, 0)
    yield from share("trainer.warmup_share", trainer.warmup_share)
    yield from above("trainer.max_grad_norm", trainer.max_grad_norm, 0)
    yield from at_least("trainer.evaluations", trainer.evaluations, 0)
    yield from at_least("trainer.threads", trainer.threads, 1)
    yield from at_least("trainer.checkpoint_minutes", trainer.checkpoint_minutes, 0)
    yield from at_least("trainer.checkpoint_steps", trainer.checkpoint_steps, 1)
    if not 0 <= config.seed < 2**32:
        yield f"seed={config.seed} is out of range; use a whole number from 0 to {2**32 - 1}"
    if trainer.keep_best and trainer.evaluations < 1:
        yield "trainer.keep_best=true needs trainer.evaluations of at least 1, or set trainer.keep_best=false"
    yield from _distillation(config)
    yield from parallel.faults(config)
    if trainer.objective is Objective.lesson and config.data.template is not Template.lesson:
        yield (
            f"trainer.objective=lesson reproduces the lesson's own prompt, not data.template="
            f"{config.data.template.value}; set data.template=lesson"
        )


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
    if config.peft.method == "cpt":
        yield "peft=cpt trains on a loss of its own, which trainer.objective=distill cannot mix; use completion"
    yield from above("trainer.distill_temperature", trainer.distill_temperature, 0)
    yield from share("trainer.distill_weight", trainer.distill_weight, closed=True)


def _scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    yield from one_of("scoring.split", scoring.split, ("test", "validation"))
    yield from one_of("scoring.tokenize", scoring.tokenize, TOKENIZERS)
    for metric in scoring.metrics:
        yield from one_of("scoring.metrics", metric, METRICS)
    if "names_target" in scoring.metrics and config.data.columns.target is None:
        yield (
            "scoring.metrics holds names_target but data.columns.target is null; name the column with the "
            "short answer, or set scoring.metrics without names_target"
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
