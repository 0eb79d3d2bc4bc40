"""The training loop's set-up, on transformers' Trainer; callbacks stand in ``harness.watch``."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from harness import checkpoints, estimate, loop, methods, parallel, resume, schema, sharding, stops, tokens, watch
from harness.checkpoints import Keeping
from harness.losses import mean_completion_loss, spares_logits
from harness.plan import Plan
from harness.tokens import Example

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.progress import Beacon
    from harness.teachers import Teacher


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
    parameters: estimate.Counts  # when training began, after the optimizer was made: some freeze weights there

    @property
    def tokens_per_s(self) -> float:
        """Prompt and completion tokens over stepping time; padding does not count."""
        return self.text_tokens / max(self.step_seconds, 1e-9)


def optimizer_steps(trainer: schema.Trainer, rows: int) -> int:
    """Optimizer steps of a run over so many training rows."""
    if trainer.max_steps is not None:
        return trainer.max_steps
    batches = math.ceil(rows / (trainer.batch_size * trainer.parallel.processes))
    per_epoch = math.ceil(batches / trainer.gradient_accumulation_steps)
    return math.ceil(trainer.epochs * per_epoch)


def rows_per_step(trainer: schema.Trainer) -> int:
    """Rows of one optimizer step, over all processes."""
    return trainer.batch_size * trainer.gradient_accumulation_steps * trainer.parallel.processes


def train(
    model: "PeftModel",
    plan: Plan,
    examples: Sequence[Example],
    validation: Sequence[Example],
    *,
    pad_id: int,
    dtype: torch.dtype,
    folder: Path,
    log: Callable[[int, dict[str, float]], None],
    label: str,
    teacher: "Teacher | None" = None,
    idle: Sequence[torch.nn.Module] = (),
    keeping: Keeping | None = None,
    say: Callable[[str], None] = lambda text: None,
    beacon: "Beacon | None" = None,
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
    device, steps = next(model.parameters()).device, optimizer_steps(plan.trainer, len(examples))
    loss = partial(mean_completion_loss, examples=validation, pad_id=pad_id, batch_size=plan.scoring.loss_batch_size)
    validate = watch.Validate(loss, _validation_steps(plan.trainer, steps), log)
    best = watch.KeepBest(validate, folder, first_step=_settled_after(model)) if plan.trainer.keep_best else None
    completion = plan.trainer.objective is not schema.Objective.lesson
    clock, tally = watch.Clock(), watch.Tally(device, labels_are_text=completion)
    callbacks: list[TrainerCallback] = [watch.Prune(), validate, *([best] if best else []), clock]
    callbacks += [watch.Progress(label, clock, tally, validate), watch.Curve(log)]
    if keeping:
        callbacks.append(watch.Checkpoint(keeping.every_s, keeping.every_steps))
    gathered = resume.Gathered(validate, best, clock, tally)
    callbacks += [watch.Signal(beacon, clock, tally)] if beacon else []
    found = parallel.agreed(lambda: checkpoints.newest(keeping) if keeping else None)
    done = found is not None and resume.is_done(found)  # asked now: newer ones will take its place
    if found:
        say(f"goes on from the checkpoint of optimizer step {checkpoints.step_of(found)} of {steps}")
    # Without checkpoints there is nothing to wait for.
    with stops.deferred() if keeping else nullcontext():
        with sharding.subject(model, plan.trainer.parallel, idle) as subject:
            trainer = loop.Loop(
                model=subject,
                args=_arguments(plan, device, dtype, steps, folder),
                train_dataset=[*examples, None],  # None: what a short step is filled up with among processes
                data_collator=_collator(plan.trainer.objective, pad_id, examples[0], spares_logits(model)),
                callbacks=callbacks,
                optimizer=methods.optimizer_for(*_optimizer_terms(plan, subject)),
                gathered=gathered,
                keeping=keeping,
                teacher=teacher,
            )
            trainer.remove_callback(PrinterCallback)
            sharding.confirm(trainer.accelerator, plan.trainer.parallel.strategy)
            counts = estimate.count(model)
            torch.manual_seed(plan.seed + parallel.rank())  # else all processes would drop out alike
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
        curve=watch.curve_of(trainer.state.log_history),
        validation=validate.history,
        best_step=best.step if best else None,
        parameters=counts,
    )


def _keep_end(trainer: "loop.Loop", gathered: resume.Gathered, keeping: Keeping) -> None:
    """The checkpoint of the end of training, which scoring would otherwise have to wait for once more."""
    write = partial(resume.write_done, trainer, gathered, gathered.values(trainer, done=True))
    if parallel.leads():
        checkpoints.save(keeping, trainer.state.global_step, write)


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed every generator; before the adapter is made, so that two runs of one seed start alike."""
    from transformers import enable_full_determinism, set_seed

    if deterministic:
        enable_full_determinism(seed)
    else:
        torch.use_deterministic_algorithms(False)  # an earlier run of this process may have asked for them
        torch.backends.cudnn.deterministic = False
        set_seed(seed)


def _optimizer_terms(plan: Plan, model: "PeftModel") -> tuple[Any, ...]:
    return plan.method, plan.settings, model, plan.learning_rate, plan.trainer.weight_decay


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
    objective: schema.Objective, pad_id: int, some: Example, sparing: bool
) -> Callable[[Sequence[Example | None]], dict[str, Any]]:
    """Training batches of examples, by the objective's labels; ``sparing``: without logits that no label needs."""
    lesson = objective is schema.Objective.lesson
    labelled = (
        partial(tokens.lesson_collate, pad_id=pad_id)
        if lesson
        else partial(tokens.collate, pad_id=pad_id, side="right")
    )
    collate = sharding.keeping_pace(labelled, some)
    return (lambda examples: tokens.sparing(collate(examples))) if sparing else collate


def _validation_steps(trainer: schema.Trainer, steps: int) -> list[int]:
    """Optimizer steps after which the validation loss is taken, evenly spread, the last one among them."""
    count = min(trainer.evaluations, steps)
    return sorted({round(steps * (index + 1) / count) for index in range(count)})


def _settled_after(model: "PeftModel") -> int:
    """First step whose weights may be kept: before a method has pruned, they exceed its budget."""
    config: Any = model.peft_config[str(model.active_adapter)]
    if getattr(config, "project_step", None) is not None:
        return int(config.project_step)
    total = getattr(config, "total_step", None)
    return total - config.tfinal if total else 0
