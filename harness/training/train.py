"""The training loop's set-up, on transformers' Trainer; callbacks are in ``callbacks``."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from harness.config import schema
from harness.data import collate as data_collate
from harness.data.tokenize import TokenizedRow
from harness.methods.registry import hooks_of
from harness.models import counts as model_counts
from harness.plan.spec import Plan, optimizer_steps
from harness.runtime import distributed, signals
from harness.scoring.losses import can_skip_logits, mean_completion_loss
from harness.training import checkpoints, sharding, state
from harness.training.callbacks import (
    Checkpoint,
    KeepBest,
    LogCurve,
    MethodHooks,
    ProgressBar,
    StepTimer,
    TokenCounter,
    Validate,
    WriteProgress,
    curve_of,
)
from harness.training.checkpoints import CheckpointSettings
from harness.training.trainer import HarnessTrainer

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.record.progress import ProgressWriter
    from harness.training.distillation import Teacher


@dataclass(frozen=True)
class Training:
    """What training did; times are seconds, losses nats per completion token."""

    optimizer_steps: int
    step_seconds: float  # stepping only: no validation, no saving
    supervised_tokens: int
    prompt_tokens: int
    padding_tokens: int
    text_tokens: int  # prompts and completions that the model has read
    curve: list[dict[str, float]]
    validation: list[dict[str, float]]
    best_step: int | None
    parameters: model_counts.Counts  # when training began, after the optimizer was made: some freeze weights there

    @property
    def tokens_per_s(self) -> float:
        """Prompt and completion tokens over stepping time; padding does not count."""
        return self.text_tokens / max(self.step_seconds, 1e-9)


def train(
    model: "PeftModel",
    plan: Plan,
    examples: Sequence[TokenizedRow],
    validation: Sequence[TokenizedRow],
    *,
    pad_id: int,
    dtype: torch.dtype,
    folder: Path,
    log: Callable[[int, dict[str, float]], None],
    label: str,
    teacher: "Teacher | None" = None,
    idle: Sequence[torch.nn.Module] = (),
    keeping: CheckpointSettings | None = None,
    say: Callable[[str], None] = lambda text: None,
    beacon: "ProgressWriter | None" = None,
) -> Training:
    """Train ``model`` in place; end with its best weights where the plan keeps them.

    With a checkpoint there, of this plan and this code, training goes on from it, and ends as it would have.

    Args:
        dtype: of the base weights and of the arithmetic; the trainable weights are float32.
        folder: scratch of this run, for the best weights so far.
        log: receives ``(optimizer step, values)`` for the tracker.
        label: what the progress bar says.
        teacher: of trainer.objective=distill.
        idle: other models over the same weights, which make room where the strategy trains shards.
        keeping: where checkpoints lie; None: neither read nor written.
        say: receives what the record should note.
        beacon: tells other processes how far training is.

    Raises:
        RunFault: a loss was not finite; names the step and the rows of the batch.
        Interrupted: the process was told to stop; a checkpoint has been written.
    """
    if plan.trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    hooks = hooks_of(plan.method, plan.settings)
    device, steps = next(model.parameters()).device, optimizer_steps(plan.trainer, len(examples))
    loss = partial(mean_completion_loss, examples=validation, pad_id=pad_id, batch_size=plan.scoring.loss_batch_size)
    validate = Validate(loss, _validation_steps(plan.trainer, steps), log)
    best = KeepBest(validate, folder, first_step=hooks.first_keepable_step(model)) if plan.trainer.keep_best else None
    completion = plan.trainer.objective is not schema.Objective.lesson
    clock, tally = StepTimer(), TokenCounter(device, labels_are_text=completion)
    callbacks: list[TrainerCallback] = [MethodHooks(hooks), validate, *([best] if best else []), clock]
    callbacks += [ProgressBar(label, clock, tally, validate), LogCurve(log)]
    if keeping:
        callbacks.append(Checkpoint(keeping.every_s, keeping.every_steps))
    gathered = state.CallbackState(validate, best, clock, tally)
    callbacks += [WriteProgress(beacon, clock, tally)] if beacon else []
    found = distributed.broadcast_from_main(lambda: checkpoints.newest_checkpoint(keeping) if keeping else None)
    done = found is not None and state.is_end_state(found)  # asked now: newer ones will take its place
    if found:
        say(f"goes on from the checkpoint of optimizer step {checkpoints.step_of(found)} of {steps}")
    # Without checkpoints there is nothing to wait for.
    with signals.deferred() if keeping else nullcontext():
        with sharding.subject(model, plan.trainer.parallel, idle) as subject:
            trainer = HarnessTrainer(
                model=subject,
                args=_arguments(plan, device, dtype, steps, folder),
                train_dataset=[*examples, None],  # None: what a short step is filled up with among processes
                data_collator=_collator(plan.trainer.objective, pad_id, examples[0], can_skip_logits(model)),
                callbacks=callbacks,
                optimizer=hooks.optimizer(subject, plan.settings, plan.learning_rate, plan.trainer.weight_decay),
                hooks=hooks,
                gathered=gathered,
                keeping=keeping,
                teacher=teacher,
            )
            trainer.remove_callback(PrinterCallback)
            sharding.confirm_sharded(trainer.accelerator, plan.trainer.parallel.strategy)
            counts = model_counts.count(model)
            torch.manual_seed(plan.seed + distributed.rank())  # else all processes would drop out alike
            trainer.train_from(found)
        if best is not None:
            best.restore(model)
        if keeping and not done:
            _keep_end(trainer, gathered, keeping)
    return Training(
        optimizer_steps=trainer.state.global_step,
        step_seconds=clock.seconds,
        **tally.counts(),
        text_tokens=tally.state()[1],
        curve=curve_of(trainer.state.log_history),
        validation=validate.history,
        best_step=best.step if best else None,
        parameters=counts,
    )


def _keep_end(trainer: "HarnessTrainer", gathered: state.CallbackState, keeping: CheckpointSettings) -> None:
    """The checkpoint of the end of training, which scoring would otherwise have to wait for once more."""
    write = partial(state.write_end_state, trainer, gathered, gathered.values(trainer, done=True))
    if distributed.is_main_process():
        checkpoints.write_checkpoint(keeping, trainer.state.global_step, write)


def _arguments(plan: Plan, device: torch.device, dtype: torch.dtype, steps: int, folder: Path) -> TrainingArguments:
    trainer = plan.trainer
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=trainer.batch_size,
        gradient_accumulation_steps=trainer.gradient_accumulation_steps,
        learning_rate=plan.learning_rate,
        weight_decay=trainer.weight_decay,
        lr_scheduler_type=trainer.schedule.value,
        warmup_steps=round(trainer.warmup_share * steps),
        max_grad_norm=trainer.max_grad_norm,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=device.type == "cpu",
        seed=plan.seed,
        data_seed=plan.seed,
        full_determinism=trainer.deterministic,
        logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        **sharding.arguments(trainer.parallel),
    )
    sharding.place(arguments, device)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else each step would take one batch for every GPU that is there
    return arguments


def _collator(
    objective: schema.Objective, pad_id: int, some: TokenizedRow, sparing: bool
) -> Callable[[Sequence[TokenizedRow | None]], dict[str, Any]]:
    """Training batches of examples, by the objective's labels; ``sparing``: without logits that no label needs."""
    lesson = objective is schema.Objective.lesson
    labelled = (
        partial(data_collate.lesson_collate, pad_id=pad_id)
        if lesson
        else partial(data_collate.collate, pad_id=pad_id, side="right")
    )
    collate = sharding.in_step(labelled, some)
    return (lambda examples: data_collate.with_needed_logits(collate(examples))) if sparing else collate


def _validation_steps(trainer: schema.Trainer, steps: int) -> list[int]:
    """Optimizer steps after which the validation loss is taken, evenly spread, the last one among them."""
    count = min(trainer.evaluations, steps)
    return sorted({round(steps * (index + 1) / count) for index in range(count)})
