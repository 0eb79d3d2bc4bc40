"""Faults of a typed configuration that can be found without weights or rows.

Each check yields sentences that name key, value and remedy. The types of all values are already right.
"""

from collections.abc import Iterator
from typing import Any

from harness.config.schema import (
    SHEETS,
    Config,
    Gguf,
    ModelSource,
    Objective,
    OnOom,
    Prune,
    Quantization,
    RowFormat,
    Stage,
    Strategy,
    Template,
    Tracking,
    TrainOn,
    can_checkpoint,
)
from harness.data.checks import data_faults, own_or_one_of, template_faults
from harness.errors import above, at_least, brief, fraction, one_of
from harness.extensions.imports import call_faults, is_import_path, load, load_fault
from harness.methods import fields
from harness.methods.knobs import FLOPS, STORED, TRAINABLE
from harness.methods.registry import METHODS, hooks_of, traits_of
from harness.plan import claims, parallel_checks
from harness.plan.devices import device_faults
from harness.plan.extensions import section_faults, tracker_faults
from harness.plan.values import is_text, path_faults, texts, unwritable_folder, value_faults
from harness.runtime.loopback import is_loopback
from harness.scoring import custom, judging, lm_harness
from harness.scoring.catalog import AUTO, JUDGE, SCORES, TOKENIZE, metric_names, reads_answers


def config_faults(config: Config) -> list[str]:
    """Every fault of this configuration, in the order of its groups."""
    if config.peft.method not in SHEETS:
        return [f"peft.method={config.peft.method} is unknown; choose one of {', '.join(SHEETS)}"]
    sheet = getattr(config, config.peft.method)
    used = {key: node for key, node in vars(config).items() if key not in SHEETS} | {config.peft.method: sheet}
    bad_values = dict(fault for key, node in used.items() for fault in value_faults(key, node))
    parts = (
        _model(config),
        data_faults(config.data),
        _trainer(config),
        _scoring(config),
        _tracker(config),
        _report(config),
        _select(config),
        _refine(config),
        _budget(config),
        claims.claim_faults(config),
        _housekeeping(config),
        _paths(config),
    )
    found = [fault for part in parts for fault in part]
    found += _sweep(config)
    found += method_faults(config)
    # A value that is not a finite number needs no second message about its size.
    rest = [fault for fault in found if fault.partition("=")[0] not in bad_values]
    return [*bad_values.values(), *dict.fromkeys(rest)]


def method_faults(config: Config) -> list[str]:
    """Faults of the method's own settings, alone and with each other."""
    sheet = getattr(config, config.peft.method)
    return [*fields.field_faults(config.peft.method, sheet), *METHODS[config.peft.method].check(sheet)]


def has_budget(config: Config) -> bool:
    """Whether the size of the method follows from a budget."""
    return config.stage in (Stage.run, Stage.plan) and bool(_budgets(config))


def _budgets(config: Config) -> list[str]:
    return [key for key in (TRAINABLE, STORED, FLOPS) if getattr(config.budget, key) is not None]


def _budget(config: Config) -> Iterator[str]:
    given = _budgets(config)
    for key in given:
        yield from at_least(f"budget.{key}", getattr(config.budget, key), 1)
    yield from above("budget.tolerance", config.budget.tolerance, 0)
    if len(given) > 1:
        shown = " and ".join(f"budget.{key}" for key in given)
        yield f"{shown} are different measures of one size; set one of them"
    if given and has_budget(config) and not METHODS[config.peft.method].knobs:
        yield (
            f"peft={config.peft.method} has no setting that decides its size, which budget.{given[0]} could set; leave "
            "it out, or run it without a budget"
        )


def _model(config: Config) -> Iterator[str]:
    model = config.model
    yield from _source(model.source)
    own = is_import_path(model.source)
    if model.source is not ModelSource.package and not model.path and not own:
        yield f"model.path is empty; model.source={model.source} needs it"
    if model.source is ModelSource.package and not model.packages:
        yield "model.packages is empty; model.source=package needs the distributions that carry the weights"
    if model.trust_remote_code and model.source is not ModelSource.hub and not own:
        yield f"model.trust_remote_code=true is for model.source=hub, not {model.source}; set it to false"
    yield from fraction("model.prune", model.prune)
    if model.prune and model.quantization is not Quantization.none:
        yield (
            f"model.prune={model.prune} needs unquantized base weights, not model.quantization="
            f"{model.quantization.value}; set model.prune=0, or model.quantization=none"
        )
    yield from _quantization(config)


def _source(source: str) -> Iterator[str]:
    if not is_import_path(source):
        yield from own_or_one_of("model.source", source, ModelSource, "my_pkg.models:folder")
        return
    fault = load_fault("model.source", source)
    yield from (
        [fault] if fault else call_faults("model.source", source, load("model.source", source), ("model",), ("model",))
    )


def _quantization(config: Config) -> Iterator[str]:
    """Methods that cannot work on a base in 4 or 8 bits, most because they compute with its weights."""
    kind, method = config.model.quantization, config.peft.method
    if kind is Quantization.none:
        return
    from harness.methods.registry import why_unquantized

    why = why_unquantized(method, vars(getattr(config, method)), kind.value)
    if why:
        start = f" lora.init_lora_weights={config.lora.init_lora_weights}" if method == "lora" else ""
        start = f" library.type={config.library.type}" if method == "library" else start
        yield (
            f"peft={method}{start} {why}; model.quantization={kind.value} does not go with it: set "
            "model.quantization=none, or choose another method"
        )


def _paths(config: Config) -> Iterator[str]:
    """Paths that cannot exist, and a folder for records that cannot be written."""
    paths: dict[str, Any] = {
        "runs_dir": config.runs_dir,
        "adapter_path": config.adapter_path,
        "data.path": config.data.path,
        "model.path": config.model.path,
        "model.config_only": config.model.config_only,
        "scoring.forgetting": config.scoring.forgetting,
        "scoring.judge.model": config.scoring.judge.model,
        "scoring.lm_eval.include_path": config.scoring.lm_eval.include_path,
        "export.dir": config.export.dir,
        "export.converter": config.export.converter,
        "report.dir": config.report.dir,
        "report.runs_dirs": config.report.runs_dirs,
        "archive.dir": config.archive.dir,
        "import_results.path": config.import_results.path,
        "bundle.path": config.bundle.path,
        "bundle.dir": config.bundle.dir,
        "bundle.files": config.bundle.files,
    }
    paths |= {f"data.splits.{name}": split for name, split in vars(config.data.splits).items()}
    if config.tracker.name is not Tracking.none:
        paths["tracker.dir"] = config.tracker.dir
    impossible = [fault for key, given in paths.items() for path in _named(given) for fault in path_faults(key, path)]
    yield from impossible
    if not config.runs_dir:
        yield "runs_dir is empty; name the folder for records, e.g. runs_dir=runs"
    elif not impossible and is_text(config.runs_dir):
        yield from unwritable_folder(config.runs_dir, config.stage)


def _named(given: Any) -> list[str]:
    """The paths of a setting that takes one, or a list of them."""
    return [path for path in (given if isinstance(given, list) else [given]) if isinstance(path, str) and path]


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
        yield f"seed={config.seed} must be at least 0 and at most {2**32 - 1}"
    if trainer.keep_best and trainer.evaluations < 1:
        yield "trainer.keep_best=true needs trainer.evaluations of at least 1; raise it, or set trainer.keep_best=false"
    yield from at_least("trainer.log_every", trainer.log_every, 1)
    yield from above("trainer.neftune_alpha", trainer.neftune_alpha, 0)
    yield from _early_stopping(config)
    yield from _row_weights(config)
    yield from _preferences(config)
    if trainer.continue_from is not None and not trainer.continue_from:
        yield "trainer.continue_from is empty; give a run's fingerprint, an adapter's folder or hub name, or null"
    yield from _checkpointing(config)
    yield from _halving(config)
    yield from _distillation(config)
    yield from parallel_checks.parallel_faults(config)
    if trainer.objective is Objective.lesson and config.data.train_on is TrainOn.all:
        yield "data.train_on=all needs trainer.objective=completion or distill; the lesson trains the last answer alone"
    if trainer.objective is Objective.full_sequence and config.data.train_on is TrainOn.all:
        yield "trainer.objective=full_sequence trains every token already; set data.train_on=last"
    if trainer.objective is Objective.lesson and config.data.template not in (Template.lesson, Template.lesson_exact):
        yield (
            f"trainer.objective=lesson reproduces the lesson with its own prompt, not data.template="
            f"{config.data.template}; set data.template=lesson_exact"
        )


def _early_stopping(config: Config) -> Iterator[str]:
    """Training can end early only between two evaluations of the validation loss, of which there must be enough."""
    evaluations, stopping = config.trainer.evaluations, config.trainer.early_stopping
    yield from at_least("trainer.early_stopping.patience", stopping.patience, 1)
    yield from at_least("trainer.early_stopping.min_change", stopping.min_change, 0)
    if stopping.patience is None:
        if stopping.min_change > 0:
            yield (
                f"trainer.early_stopping.min_change={stopping.min_change} has no effect without "
                "trainer.early_stopping.patience; set that, or leave it out"
            )
        return
    start, needed = f"trainer.early_stopping.patience={stopping.patience}", stopping.patience + 2
    if evaluations < needed:  # one to begin with, those without a lower loss, and the last one, which ends training
        yield (
            f"{start} cannot end training before its end with trainer.evaluations={evaluations}; set "
            f"trainer.evaluations={needed} or more, or trainer.early_stopping.patience=null"
        )
    data = config.data
    if data.splits.validation is None and not data.fractions.validation:
        yield (
            f"{start} needs validation rows, of which data.splits.validation=null and data.fractions.validation=0.0 "
            "leave none; set one of them"
        )


def _row_weights(config: Config) -> Iterator[str]:
    """Weights of rows need a loss that is a sum over tokens."""
    column = config.data.columns.weight
    if column is None and not config.data.class_weights:
        return
    given = f"data.columns.weight={brief(column)}" if column is not None else "data.class_weights"
    if config.trainer.objective in (Objective.lesson, Objective.distill, Objective.dpo):
        yield (
            f"{given} cannot weigh trainer.objective={config.trainer.objective.value}; set "
            "trainer.objective=completion, or leave the weights out"
        )
    if hooks_of(config.peft.method, vars(getattr(config, config.peft.method))).own_loss:
        yield f"{given} cannot weigh the loss that peft={config.peft.method} brings itself; leave the weights out"


def _preferences(config: Config) -> Iterator[str]:
    """DPO needs pairs of answers, and a model whose loss is nothing but theirs."""
    trainer, method = config.trainer, config.peft.method
    yield from above("trainer.dpo.beta", trainer.dpo.beta, 0)
    if not 0 <= trainer.dpo.label_smoothing < 0.5:
        yield f"trainer.dpo.label_smoothing={trainer.dpo.label_smoothing} must be at least 0 and below 0.5"
    if trainer.objective is not Objective.dpo:
        return
    start = "trainer.objective=dpo"
    if config.data.format is not RowFormat.preference:
        yield (
            f"{start} needs pairs of answers, which data.format={config.data.format} has not; set data=preference "
            "data.path=<file>, or data=medicine_preference"
        )
    hooks = hooks_of(method, vars(getattr(config, method)))
    if hooks.own_loss or hooks.penalties:
        what = "trains on its own loss" if hooks.own_loss else "adds a penalty to the loss of completions"
        yield f"{start} has a loss of pairs alone, but peft={method} {what}; choose another method"
    if trainer.parallel.strategy is not Strategy.none:
        yield (
            f"{start} trains in one process, not with trainer.parallel.strategy={trainer.parallel.strategy.value}; set "
            "trainer/parallel=none"
        )


def _checkpointing(config: Config) -> Iterator[str]:
    method = config.peft.method
    traits = traits_of(method, vars(getattr(config, method)))
    if config.trainer.gradient_checkpointing and not traits.checkpointing:
        yield f"peft={method} {traits.why_no_checkpointing}; set trainer.gradient_checkpointing=false"


def _halving(config: Config) -> Iterator[str]:
    """Losses that depend on how the rows of a step are divided into passes: halving a pass would change the result."""
    if config.trainer.on_oom is not OnOom.halve:
        return
    method = config.peft.method
    advice = "set trainer.on_oom=fail, and lower trainer.batch_size yourself if memory runs out"
    if hooks_of(method, vars(getattr(config, method))).own_loss:
        yield (
            f"trainer.on_oom=halve would change the result of peft={method}, whose loss is a mean over each pass, not "
            f"over the tokens of a step; {advice}"
        )
    if config.trainer.objective is Objective.lesson:
        yield (
            "trainer.on_oom=halve would change the result of trainer.objective=lesson, which trains on the padding of "
            f"each pass; {advice}"
        )


def _distillation(config: Config) -> Iterator[str]:
    trainer = config.trainer
    if trainer.objective is not Objective.distill:
        if trainer.teacher is not None:
            yield (
                f"trainer.teacher={brief(trainer.teacher)} has no effect without trainer.objective=distill; set "
                "that, or trainer.teacher=null"
            )
        return
    if not trainer.teacher:
        yield (
            "trainer.teacher=null but trainer.objective=distill needs one; give a model folder, a hub name or the "
            "fingerprint of a run"
        )
    if METHODS[config.peft.method].hooks.own_loss:
        yield (
            f"peft={config.peft.method} trains on its own loss, which trainer.objective=distill cannot mix with a "
            "teacher's; set trainer.objective=completion"
        )
    yield from above("trainer.distill_temperature", trainer.distill_temperature, 0)
    yield from fraction("trainer.distill_weight", trainer.distill_weight, closed=True)


def _scoring(config: Config) -> Iterator[str]:
    scoring = config.scoring
    yield from one_of("scoring.split", scoring.split, ("test", "validation"))
    yield from one_of("scoring.tokenize", scoring.tokenize, (AUTO, *TOKENIZE))
    own = [each for each in scoring.metrics if is_import_path(each)]
    yield from custom.metric_faults(own, config.data.columns.keep)
    if scoring.template is not None:
        yield from template_faults("scoring.template", scoring.template, config.data.columns.keep)
    for metric in scoring.metrics:
        if metric not in own:
            yield from _metric_name(metric)
        if metric in SCORES and SCORES[metric].needs == "targets" and config.data.columns.target is None:
            yield (
                f"scoring.metrics contains {metric} but data.columns.target is null; name the column with the short "
                f"answer, or set scoring.metrics without {metric}"
            )
    choices = [metric for metric in scoring.metrics if metric in SCORES and not reads_answers(metric)]
    if choices and config.data.options is None and config.data.columns.options is None:
        yield (
            f"scoring.metrics contains {choices[0]} but no row has options; set data.options=[no,yes], or name their "
            "column with data.columns.options"
        )
    yield from _lm_eval(config)
    yield from judging.judge_faults(scoring.judge, JUDGE in scoring.metrics)
    yield from at_least("scoring.choices.bins", scoring.choices.bins, 1)
    generation = scoring.generation
    yield from at_least("scoring.generation.batch_size", generation.batch_size, 1)
    yield from at_least("scoring.generation.max_new_tokens", generation.max_new_tokens, 1)
    yield from at_least("scoring.loss_batch_size", scoring.loss_batch_size, 1)
    yield from at_least("scoring.forgetting_limit", scoring.forgetting_limit, 1)
    if generation.do_sample:
        yield from above("scoring.generation.temperature", generation.temperature, 0)
        if not 0 < generation.top_p <= 1:
            yield f"scoring.generation.top_p={generation.top_p} must be above 0 and at most 1"


def _lm_eval(config: Config) -> Iterator[str]:
    tasks = config.scoring.lm_eval
    yield from at_least("scoring.lm_eval.num_fewshot", tasks.num_fewshot, 0)
    yield from at_least("scoring.lm_eval.limit", tasks.limit, 1)
    yield from at_least("scoring.lm_eval.batch_size", tasks.batch_size, 1)
    yield from at_least("scoring.lm_eval.bootstrap_iters", tasks.bootstrap_iters, 0)
    if tasks.include_path and not tasks.tasks:
        yield (
            f"scoring.lm_eval.include_path={brief(tasks.include_path)} has no effect without scoring.lm_eval.tasks; "
            "name the tasks"
        )
    if config.stage in (Stage.run, Stage.plan, Stage.score):
        yield from lm_harness.task_faults(tasks)


def _metric_name(metric: str) -> Iterator[str]:
    for fault in one_of("scoring.metrics", metric, metric_names()):
        yield f"{fault}, or an import path such as my_pkg.metrics:{metric if metric.isidentifier() else 'mine'}"


def _tracker(config: Config) -> Iterator[str]:
    tracker = config.tracker
    yield from tracker_faults(tracker.name)
    if tracker.name is Tracking.wandb:
        yield from one_of("tracker.mode", tracker.mode, ("offline", "online"))
    for key in ("artifact", "system_metrics"):
        if getattr(tracker, key) and tracker.name not in (Tracking.wandb, Tracking.trackio):
            yield f"tracker.{key}=true has no effect with tracker={tracker.name}; use tracker=wandb or trackio"


def _report(config: Config) -> Iterator[str]:
    for name in ("runs", "runs_dirs"):
        value = getattr(config.report, name)
        if not texts(value):
            shown = brief(str(value))
            yield f"report.{name}={shown} is not a list of texts; write report.{name}=[a,b], or null for all"
    yield from section_faults(config.report.sections)
    yield from above("report.minimum_effect", config.report.minimum_effect, 0)


def _housekeeping(config: Config) -> Iterator[str]:
    runs = config.diff.runs
    if config.stage is Stage.diff and not (isinstance(runs, list) and len(runs) == 2 and texts(runs)):
        yield f"diff.runs={brief(str(runs))} does not name two runs; write diff.runs=[3f2a,77b0]"
    if config.stage is Stage.archive and not any((config.report.where, config.report.sweep, config.report.runs)):
        yield (
            "stage=archive would take every run; choose some with report.where, report.sweep or report.runs, "
            "such as report.where='status == failed'"
        )
    if config.stage is Stage.import_results and not config.import_results.path:
        yield "import_results.path is null; name a result file of PEFT's method_comparison, or a folder of them"
    yield from _bundle(config)
    yield from _talking(config)
    yield from _planning(config)
    yield from _adapters(config)
    yield from _publishing(config)
    if config.confirm and not config.archive.delete:
        yield "confirm=true has nothing to confirm; it belongs to stage=archive archive.delete=true"


def _planning(config: Config) -> Iterator[str]:
    """stage=plan alone reads these settings, and the length of the longest row matters only on a device."""
    plan, planning = config.plan, config.stage is Stage.plan
    yield from device_faults(plan.device)
    yield from at_least("plan.tokens", plan.tokens, 2)
    given = {"device": plan.device, "tokens": plan.tokens, "capacity": "true" if plan.capacity else None}
    for name, value in given.items():
        if value is not None and not planning:
            yield f"plan.{name}={brief(str(value))} belongs to stage=plan; add stage=plan, or leave it out"
    if plan.tokens is not None and planning and plan.device is None:
        yield (
            f"plan.tokens={plan.tokens} has no effect without a device, on which a pass of that length is costed; add "
            "plan.device=here or a device's name, or leave it out"
        )


def _publishing(config: Config) -> Iterator[str]:
    """stage=push sends to a named place; a GGUF file is made of plain weights."""
    push, export = config.push, config.export
    if push.really and config.stage is not Stage.push:
        yield f"push.really=true has no effect with stage={config.stage.value}; it belongs to stage=push"
    if export.gguf is not Gguf.none and export.quantization is not Quantization.none:
        yield (
            f"export.gguf={export.gguf.value} is made of plain weights, not of export.quantization="
            f"{export.quantization.value}; set export.quantization=none, and export.gguf=q8_0 for a small file"
        )


def _adapters(config: Config) -> Iterator[str]:
    """Adapters from elsewhere, for the stages that read them."""
    given = config.adapter_path
    if given is None:
        return
    shown = brief(str(given))
    if not texts(given) or not given or not all([given] if isinstance(given, str) else given):
        yield f"adapter_path={shown} is no folder or hub name, or a list of these; write adapter_path=[a,b]"
    elif config.stage not in (Stage.score, Stage.export, Stage.chat, Stage.serve):
        yield (
            f"adapter_path={shown} is for stage=score, export, chat and serve, not stage={config.stage.value}; "
            "leave it out"
        )
    elif config.run is not None:
        yield f"adapter_path={shown} and run={config.run} both name an adapter; leave one of them out"
    elif config.stage is Stage.export and not isinstance(given, str) and len(given) > 1:
        yield f"adapter_path={shown}: stage=export writes one model; name one adapter"
    elif config.stage is Stage.chat and not isinstance(given, str) and len(given) > 1:
        yield f"adapter_path={shown}: stage=chat talks to one adapter; name one, or use stage=serve"


def _talking(config: Config) -> Iterator[str]:
    """stage=chat and stage=serve take messages where they run; the page is for this machine unless told otherwise."""
    serve = config.serve
    if config.input is not None and config.stage in (Stage.chat, Stage.serve):
        yield (
            f"input={brief(config.input)} has no effect with stage={config.stage.value}, where the messages are the "
            "input; leave it out"
        )
    if not 0 <= serve.port <= 65535:
        yield f"serve.port={serve.port} is no port; use 1 to 65535, or 0 for a free one"
    if not serve.allow_remote and not is_loopback(serve.host):
        yield (
            f"serve.host={brief(serve.host)} is an address that other machines can reach, and the page asks for no "
            "password; use serve.host=127.0.0.1, or allow it with serve.allow_remote=true"
        )


def _bundle(config: Config) -> Iterator[str]:
    """stage=bundle chooses runs; stage=verify needs an archive."""
    bundle, report = config.bundle, config.report
    chosen = any((report.where, report.sweep, report.runs, bundle.claim))
    if config.stage is Stage.bundle and not chosen:
        yield (
            "stage=bundle would take every run; choose some with report.runs, report.sweep, report.where or "
            "bundle.claim, such as report.sweep=mine"
        )
    if config.stage is Stage.verify and not bundle.path:
        yield "bundle.path is null; name the archive that stage=bundle wrote: bundle.path=mine.tar.gz"
    yield from at_least("bundle.runs", bundle.runs, 1)
    yield from at_least("bundle.tolerance", bundle.tolerance, 0)


def _sweep(config: Config) -> Iterator[str]:
    sweep = config.sweep
    yield from at_least("sweep.max_failures", sweep.max_failures, 0)
    yield from above("sweep.max_hours", sweep.max_hours, 0)
    yield from at_least("sweep.pause_after", sweep.pause_after, 1)
    for name in ("keep", "first"):
        value = getattr(sweep.halving, name)
        if not 0 < value < 1:
            yield f"sweep.halving.{name}={value} must be above 0 and below 1"
    yield from at_least("sweep.halving.margin", sweep.halving.margin, 0)
    if sweep.prune is Prune.none:
        return
    if config.trainer.evaluations < 2:
        yield (
            f"sweep.prune=halving judges by the validation loss during training, and trainer.evaluations="
            f"{config.trainer.evaluations} measures none before the end; set trainer.evaluations=8"
        )
    strategy = config.trainer.parallel.strategy
    if not can_checkpoint(strategy):
        yield (
            f"sweep.prune=halving pauses runs at checkpoints, which trainer.parallel.strategy={strategy.value} cannot "
            "write; set sweep.prune=none"
        )


def _refine(config: Config) -> Iterator[str]:
    refine = config.refine
    yield from at_least("refine.rates", refine.rates, 0)
    if refine.seeds is None:
        return
    yield from at_least("refine.seeds", refine.seeds, 1)
    if config.select.split is not None:
        yield (
            f"refine.seeds={refine.seeds} and select.split={config.select.split} both add fresh seeds after a grid; "
            "leave out one of them"
        )
    if config.trainer.evaluations < 1:
        yield (
            f"refine.seeds={refine.seeds} compares rates by validation loss, which trainer.evaluations="
            f"{config.trainer.evaluations} does not measure; set trainer.evaluations=1"
        )


def _select(config: Config) -> Iterator[str]:
    select = config.select
    if select.split is None:
        return
    yield from one_of("select.split", select.split, ("validation", "test"))
    if select.split == config.scoring.split:
        yield (
            f"select.split={select.split} is also scoring.split, so that the winners would be reported on the rows "
            "that they were chosen by; set select.split=validation scoring.split=test"
        )
    if select.per is None or not texts(select.per):
        yield f"select.per={brief(str(select.per))} is not a field or a list of fields; write select.per=method"
    if select.score not in SCORES:
        yield from one_of("select.score", select.score, tuple(SCORES))
    elif SCORES[select.score].is_metric and select.score not in custom.measured(config.scoring.metrics):
        yield (f"select.score={select.score} is not measured; add it to scoring.metrics, or set select.score=loss")
    yield from at_least("select.seeds", select.seeds, 1)
