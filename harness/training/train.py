"""Training of one model by one plan, on transformers' Trainer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback

from harness.config.schema import Objective, Trainer
from harness.data import collate as data_collate
from harness.data.tokenize import TokenizedRow
from harness.errors import Paused
from harness.methods.hooks import Hooks
from harness.methods.registry import hooks_of, traits_of
from harness.models.counts import Counts, count
from harness.models.network import checkpoint_layers
from harness.plan.spec import Plan, epoch_steps, optimizer_steps
from harness.runtime import distributed, signals
from harness.scoring.losses import can_skip_logits, mean_completion_loss
from harness.trackers.start import EPOCH, STEP, TOKENS
from harness.training import checkpoints, sharding, state
from harness.training.arguments import training_arguments
from harness.training.checkpoint_timing import CheckpointWhenDue, paused_at
from harness.training.checkpoints import CheckpointSettings
from harness.training.counters import StepTimer, TokenCounter
from harness.training.early_stopping import EarlyStop, StopEarly
from harness.training.fused.passes import fused_passes
from harness.training.method_hooks import MethodHooks
from harness.training.preferences import Preferences, collate_pairs, numbered, reference_log_probs
from harness.training.progress import LogCurve, WriteProgress, curve_of
from harness.training.row_weights import with_weights
from harness.training.state import CallbackState
from harness.training.trainer import HarnessTrainer
from harness.training.validation import KeepBest, Log, Validate

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.record.progress import ProgressWriter
    from harness.training.distillation import Teacher
    from harness.training.packed.member import Member


@dataclass(frozen=True)
class TrainingInputs:
    """What a plan trains on."""

    rows: Sequence[TokenizedRow]
    validation: Sequence[TokenizedRow]
    pad_id: int
    dtype: torch.dtype  # of the base weights and of the arithmetic; the trainable weights are float32
    teacher: "Teacher | None" = None  # of trainer.objective=distill
    base: torch.nn.Module | None = None  # the untouched base, the reference of trainer.objective=dpo
    idle: Sequence[torch.nn.Module] = ()  # other models over the same weights, which make room for shards
    member: "Member | None" = None  # of a pack, whose runs share their passes


@dataclass(frozen=True)
class Observers:
    """Who is told about the training."""

    log: Log = lambda step, values: None  # the tracker's curves
    note: Callable[[str], None] = lambda text: None  # what the record should say
    progress: "ProgressWriter | None" = None  # for the console, and for other processes


@dataclass(frozen=True)
class TrainingResult:
    """What training did; times are seconds, losses nats per completion token."""

    optimizer_steps: int
    step_seconds: float  # optimizer steps only, without validation and saving
    supervised_tokens: int
    prompt_tokens: int
    padding_tokens: int
    text_tokens: int  # prompts and completions that the model has read
    curve: list[dict[str, float]]
    validation: list[dict[str, float]]
    best_step: int | None
    parameters: Counts  # when training began, after the optimizer was made: some methods freeze weights there
    stopped_early: EarlyStop | None = None

    @property
    def tokens_per_s(self) -> float:
        """Prompt and completion tokens over the time of the steps; padding does not count."""
        return self.text_tokens / max(self.step_seconds, 1e-9)


def train(
    model: "PeftModel",
    plan: Plan,
    inputs: TrainingInputs,
    folder: Path,
    checkpoint: CheckpointSettings | None = None,
    observers: Observers | None = None,
) -> TrainingResult:
    """Train ``model`` in place; end with its best weights if the plan keeps them.

    If there is a checkpoint of this plan and this code, training resumes from it, and ends as if it had never stopped.

    Args:
        folder: scratch of this run, for the best weights so far.
        checkpoint: where checkpoints are and when they are written; None: neither read nor written.

    Raises:
        RunFault: a loss was not finite; names the step and the rows of the batch.
        Paused: the evaluation after which training pauses is reached; a checkpoint has been written.
        Interrupted: the process was told to stop; a checkpoint has been written.
    """
    observers = observers or Observers()
    if plan.trainer.gradient_checkpointing:
        checkpoint_layers(model)
    steps = optimizer_steps(plan.trainer, len(inputs.rows))
    hooks = hooks_of(plan.method, plan.settings)
    tokens = TokenCounter(next(model.parameters()).device, plan.trainer.objective is not Objective.lesson)
    observers = replace(observers, log=_with_axes(observers.log, tokens, epoch_steps(plan.trainer, len(inputs.rows))))
    start = distributed.broadcast_from_main(lambda: checkpoints.newest_checkpoint(checkpoint) if checkpoint else None)
    done = start is not None and state.is_end_state(start)  # asked now: newer checkpoints will replace it
    preferences = _preferences(model, plan, inputs, done)
    rows = inputs.rows if preferences is None else numbered(inputs.rows)
    gathered = _callback_state(model, plan, inputs, folder, observers.log, tokens, preferences)
    pause = _pause_step(checkpoint, plan.trainer, steps)
    if start:
        observers.note(f"resuming from the checkpoint at optimizer step {checkpoints.step_of(start)} of {steps}")
    with _stopping_after_checkpoint(checkpoint):
        with (
            fused_passes(model, plan.trainer) as fused,
            sharding.subject(model, plan.trainer.parallel, inputs.idle) as subject,
        ):
            trainer = HarnessTrainer(
                model=subject,
                args=training_arguments(plan, next(model.parameters()).device, inputs.dtype, steps, folder),
                train_dataset=[*rows, None],  # None: fills up a short step that several processes share
                data_collator=_collator(plan.trainer.objective, inputs, can_skip_logits(model)),
                callbacks=_callbacks(hooks, gathered, checkpoint, observers, pause),
                optimizer=hooks.optimizer(subject, plan.settings, plan.learning_rate, plan.trainer.weight_decay),
                hooks=hooks,
                gathered=gathered,
                checkpoint=checkpoint,
                teacher=inputs.teacher,
                member=inputs.member,
                fused=fused,
                joined=fused and traits_of(plan.method, plan.settings).token_wise,
                preferences=preferences,
                neftune_alpha=plan.trainer.neftune_alpha,
            )
            trainer.remove_callback(PrinterCallback)
            sharding.confirm_sharded(trainer.accelerator, plan.trainer.parallel.strategy)
            counts = count(model)
            torch.manual_seed(plan.seed + distributed.rank())  # otherwise all processes would drop out alike
            try:
                if start is not None and pause is not None and not done and checkpoints.step_of(start) >= pause:
                    trainer.read_figures(start)
                    raise Paused(paused_at(checkpoints.step_of(start), steps))
                trainer.train_from(start)
            except Paused as pausing:
                pausing.result = _result(trainer, gathered, counts)
                raise
        if gathered.best is not None:
            gathered.best.restore(model)
        if checkpoint and not done:
            _write_end(trainer, gathered, checkpoint)
    return _result(trainer, gathered, counts)


def _preferences(model: "PeftModel", plan: Plan, inputs: TrainingInputs, done: bool) -> Preferences | None:
    """DPO with the log-probabilities of its reference, unless training is done; None for other objectives."""
    if plan.trainer.objective is not Objective.dpo:
        return None
    # A training that begins with finished weights stays near those.
    reference: Any = model if plan.trainer.continue_from is not None or inputs.base is None else inputs.base
    size = plan.scoring.loss_batch_size
    training, validation = (
        reference_log_probs(reference, rows, inputs.pad_id, size)
        for rows in (() if done else inputs.rows, inputs.validation if plan.trainer.evaluations and not done else ())
    )
    return Preferences(plan.trainer.dpo, training, validation)


def _with_axes(log: Log, tokens: TokenCounter, steps_per_epoch: int) -> Log:
    """The log, with what a tracker may plot a point against."""

    def logged(step: int, values: dict[str, float]) -> None:
        log(step, {**values, STEP: step, TOKENS: tokens.text_tokens, EPOCH: step / steps_per_epoch})

    return logged


def _callback_state(
    model: "PeftModel",
    plan: Plan,
    inputs: TrainingInputs,
    folder: Path,
    log: Log,
    tokens: TokenCounter,
    preferences: Preferences | None,
) -> CallbackState:
    """The callbacks whose state a checkpoint holds."""
    steps = optimizer_steps(plan.trainer, len(inputs.rows))
    size = plan.scoring.loss_batch_size

    def measure(model: Any) -> dict[str, float]:
        if preferences is not None:
            return preferences.measure(model, inputs.validation, inputs.pad_id, size)
        loss = mean_completion_loss(model, examples=inputs.validation, pad_id=inputs.pad_id, batch_size=size)
        return {"loss": loss}

    validate = Validate(measure, _validation_steps(plan.trainer, steps), log)
    first_step = hooks_of(plan.method, plan.settings).first_keepable_step(model)
    best = KeepBest(validate, folder, first_step) if plan.trainer.keep_best else None
    stopping = plan.trainer.early_stopping
    stop = None
    if stopping.patience is not None:
        stop = StopEarly(validate, stopping.patience, stopping.min_change, first_step)
    return CallbackState(validate, best, StepTimer(), tokens, stop, preferences)


def _callbacks(
    hooks: Hooks,
    gathered: CallbackState,
    checkpoint: CheckpointSettings | None,
    observers: Observers,
    pause: int | None = None,
) -> list[TrainerCallback]:
    """All callbacks in the order of Trainer's calls: the method's hooks first, validation before the best weights."""
    timer, tokens = gathered.timer, gathered.tokens
    callbacks: list[TrainerCallback] = [MethodHooks(hooks), gathered.validate]
    callbacks += [gathered.best] if gathered.best else []
    callbacks += [gathered.stop] if gathered.stop else []
    callbacks += [timer, LogCurve(observers.log)]
    if checkpoint:
        callbacks.append(CheckpointWhenDue(checkpoint.every_s, checkpoint.every_steps, pause))
    if observers.progress:
        callbacks.append(WriteProgress(observers.progress, timer, tokens))
    return callbacks


@contextmanager
def _stopping_after_checkpoint(checkpoint: CheckpointSettings | None) -> Iterator[None]:
    """Let a signal wait for the next checkpoint; without checkpoints there is nothing to wait for."""
    if checkpoint is None:
        yield
        return
    with signals.deferred():
        yield


def _write_end(trainer: HarnessTrainer, gathered: CallbackState, checkpoint: CheckpointSettings) -> None:
    """The checkpoint of the end of training: a run that is killed while it is scored is not trained again."""
    write = partial(state.write_end_state, trainer, gathered, gathered.values(trainer, done=True))
    if distributed.is_main_process():
        checkpoints.write_checkpoint(checkpoint, trainer.state.global_step, write)


def _result(trainer: HarnessTrainer, gathered: CallbackState, counts: Counts) -> TrainingResult:
    return TrainingResult(
        optimizer_steps=trainer.state.global_step,
        step_seconds=gathered.timer.seconds,
        **gathered.tokens.counts(),
        text_tokens=gathered.tokens.state()[1],
        curve=curve_of(trainer.state.log_history),
        validation=gathered.validate.history,
        best_step=gathered.best.step if gathered.best else None,
        parameters=counts,
        stopped_early=gathered.stop.stop if gathered.stop else None,
    )


def _collator(
    objective: Objective, inputs: TrainingInputs, skip_logits: bool
) -> Callable[[Sequence[TokenizedRow | None]], dict[str, Any]]:
    """Makes training batches of rows, with the objective's labels.

    Args:
        skip_logits: whether the model can leave out logits that no label needs.
    """
    if objective is Objective.dpo:
        labelled: Any = partial(collate_pairs, pad_id=inputs.pad_id)
    elif objective is Objective.lesson:
        labelled = partial(data_collate.lesson_collate, pad_id=inputs.pad_id)
    else:
        labelled = partial(data_collate.collate, pad_id=inputs.pad_id, side="right")
    if any(row.row.weight != 1.0 for row in inputs.rows):
        labelled = with_weights(labelled)
    collate = sharding.in_step(labelled, inputs.rows[0])
    return (lambda rows: data_collate.with_needed_logits(collate(rows))) if skip_logits else collate


def _pause_step(checkpoint: CheckpointSettings | None, trainer: Trainer, steps: int) -> int | None:
    """The optimizer step after which training pauses; None if it goes on to its end."""
    number = checkpoint.pause_after if checkpoint else None
    evaluated = _validation_steps(trainer, steps) if number and trainer.evaluations else []
    return evaluated[number - 1] if number and number < len(evaluated) else None


def _validation_steps(trainer: Trainer, steps: int) -> list[int]:
    """Optimizer steps after which the validation loss is computed: evenly spread, with the last one."""
    wanted = min(trainer.evaluations, steps)
    return sorted({round(steps * (index + 1) / wanted) for index in range(wanted)})
