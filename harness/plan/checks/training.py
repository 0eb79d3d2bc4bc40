"""Faults of the trainer's settings, alone and with the method's."""

from collections.abc import Iterator

from harness.config.schema import Config, Objective, OnOom, RowFormat, Strategy, Template, TrainOn
from harness.errors import above, at_least, brief, fraction
from harness.methods.registry import METHODS, hooks_of, traits_of
from harness.plan import parallel_checks


def trainer_faults(config: Config) -> Iterator[str]:
    """Of steps, rates, validation, checkpoints and the objective."""
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
            f"{start} cannot stop training early with trainer.evaluations={evaluations}; set "
            f"trainer.evaluations={needed} or more, or trainer.early_stopping.patience=null"
        )
    data = config.data
    if data.splits.validation is None and not data.fractions.validation:
        yield (
            f"{start} needs validation rows, but data.splits.validation=null and data.fractions.validation=0.0 "
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
            f"{start} needs pairs of answers, which data.format={config.data.format} does not have; set "
            "data=preference data.path=<file>, or data=medicine_preference"
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
