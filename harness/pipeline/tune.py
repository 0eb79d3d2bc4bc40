"""Tuning: the method on a fork of the base model, trained; again with smaller batches if memory runs out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.adapters import attach as adapter_attach
from harness.adapters import save_load
from harness.adapters.continuation import begin_with
from harness.config.schema import Objective, can_checkpoint
from harness.data.collate import collate
from harness.errors import ModelFault, Paused
from harness.frozen import freeze
from harness.methods.registry import caveat, changes_base, hooks_of
from harness.models import base as model_base
from harness.models.base import Base
from harness.pipeline.lifecycle import Attempt
from harness.pipeline.values import Attached, AuditedRows, SmallerBatch, Trained, Tuned
from harness.plan.continuation import KEY, Source, find_source
from harness.plan.spec import CONTINUE_FROM, Plan, optimizer_steps, rows_per_step
from harness.runtime import distributed, memory
from harness.runtime.seeding import seed_everything
from harness.training import train as training_train
from harness.training.checkpoints import CheckpointSettings
from harness.training.train import Observers, TrainingInputs
from harness.training.trainer import loss_sums_over_step

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.data.tokenize import TokenizedRow
    from harness.training.packed.member import Member


def tune(this: Attempt, base: Base, rows: AuditedRows, member: "Member | None" = None) -> Tuned:
    """Attach the method and train it, together with others if the run is a ``member`` of a pack.

    If memory runs out, trainer.on_oom=halve does both again with smaller batches of the same rows.
    """
    plan, options = this.plan, this.options
    inputs = training_inputs(base, rows)
    if member is not None:
        member.base = base
        inputs = replace(inputs, member=member)
    if plan.trainer.objective is Objective.distill:
        inputs = replace(inputs, teacher=this.keep(this.cache.teacher(plan, options.runs_dir, base.tokenizer)))
    checkpoints = _checkpoint_settings(this)
    source = _source(plan, options.runs_dir)
    if options.budget:
        this.record.inferred["budget"] = options.budget.as_dict()
        this.note(options.budget.words)
    if options.rate_rule:
        this.record.inferred["learning_rate_rule"] = options.rate_rule
        this.note(f"learning rate {plan.learning_rate:g}: {options.rate_rule}")
        if plan.trainer.objective is Objective.dpo:
            this.note(
                "the rule of the learning rate was measured on completions; trainer.objective=dpo usually needs a "
                "lower one: set trainer.learning_rate"
            )
    observers = Observers(this.tracker.log, this.note, this.progress)
    attached: Attached | None = None
    while True:
        try:
            attached = this.keep(attach(this.plan, base, rows, source))
            write = save_load.adapter_writer(attached.model, this.scratch)
            this.enter("training")
            with memory.peak_memory(base.device.type) as peak:
                result = training_train.train(attached.model, plan, inputs, this.scratch, checkpoints, observers)
            peaks = [each for each in distributed.gather(peak.bytes) if each is not None]
            if member is not None:  # the peak is reset whenever a run of the pack begins to train or to be scored
                peaks += [member.packed.peak_bytes] if peaks and member.packed.peak_bytes else []
                this.keep(member.packed)
            highest = max(peaks, default=None)  # of the process that needs most
            # After the counts: what pruning leaves is no longer trainable, and would be counted as nothing.
            this.keep(Trained(result, highest, peak.kind, hooks_of(plan.method, plan.settings).finish(attached.model)))
            return Tuned(attached.model, write)
        except Paused as pausing:
            this.keep(Trained(pausing.result, None, None, {}))
            raise
        except (MemoryError, RuntimeError) as error:  # torch's out-of-memory errors are RuntimeErrors
            # Of several processes one may run out alone, while the others wait for it within the step.
            may_halve = options.halve_on_oom and distributed.processes() == 1 and memory.ran_out(error)
            if may_halve and attached is not None and not loss_sums_over_step(attached.model):
                this.note(
                    "trainer.on_oom=halve does not apply: the loss of this model is a mean over each pass, and smaller "
                    "passes would change the result; lower trainer.batch_size yourself"
                )
                may_halve = False
            smaller = with_smaller_batch(plan) if may_halve else None
            if smaller is None:
                raise
            plan, reason = smaller, str(error).partition("\n")[0][:200]
        # Outside the handler: the error holds on to the frames of training, and they to its tensors.
        attached, write = None, None  # type: ignore[assignment]
        memory.release_memory()
        this.keep(SmallerBatch(plan, reason))


def _source(plan: Plan, runs_dir: Path) -> Source | None:
    """Where the first weights come from; None for a training from the start.

    Raises:
        ModelFault: they are no longer those that the plan was made for.
    """
    name = plan.trainer.continue_from
    if name is None:
        return None
    source = find_source(name, runs_dir)
    if source.digest != plan.inputs[CONTINUE_FROM]:
        raise ModelFault(f"{KEY}={name}: its weights have changed since the command began; run it again")
    return source


def attach(plan: Plan, base: Base, rows: AuditedRows, source: Source | None = None) -> Attached:
    """The method on a fork of the base, seeded, ready to train.

    Args:
        source: of the first weights.

    Raises:
        ModelFault: the method does not fit the model, or the source not the method.
    """
    steps = optimizer_steps(plan.trainer, len(rows.splits["train"]))
    batches = partial(_batches, rows.splits["train"], plan.trainer.batch_size, int(base.tokenizer.pad_token_id))
    context = adapter_attach.build_context(plan, base.model.config, base.tokenizer.name_or_path, steps, batches)
    seed_everything(plan.seed, plan.trainer.deterministic)
    fork = model_base.fork(base, changes_base(plan.method, plan.settings))
    model = adapter_attach.attach(fork, plan.method, plan.settings, context)
    _detach_from_base(model, base)
    if source is not None:
        begin_with(model, source)
    resolved = adapter_attach.inferred(model, plan.settings)
    inferred = {f"{plan.method}.{key}": value for key, value in resolved.items()} | {
        "learning_rate": plan.learning_rate,
        "optimizer_steps": steps,
        "rows_per_step": rows_per_step(plan.trainer),
        "target_modules": adapter_attach.targeted(model),
        "attn_implementation": base.model.config._attn_implementation,
    }
    notes = [caveat(plan.method, plan.settings)]
    if plan.trainer.objective is Objective.dpo:
        which = "the untouched base" if source is None else "the weights with which training begins"
        notes.append(f"trainer.objective=dpo: the reference is {which}; validation losses are of pairs, not of tokens")
    if source is not None:
        inferred[CONTINUE_FROM] = source.as_dict()
        notes.append(source.words)
    if changes_base(plan.method, plan.settings):
        notes.insert(0, f"{plan.method} writes into base weights: disabling the adapter does not give the base model")
    return Attached(model, inferred, tuple(filter(None, notes)))


def training_inputs(base: Base, rows: AuditedRows) -> TrainingInputs:
    """What training on these rows takes."""
    return TrainingInputs(
        rows=rows.splits["train"],
        validation=rows.splits["validation"],
        pad_id=int(base.tokenizer.pad_token_id),
        dtype=base.dtype,
        base=base.model,
        idle=(base.model,),
    )


def with_smaller_batch(plan: Plan) -> Plan | None:
    """The plan with fewer rows per pass and as many per step; None if a pass has a single row.

    Half of them, or an odd number divided by its smallest divisor.
    """
    rows = plan.trainer.batch_size
    divisor = next((number for number in range(2, rows + 1) if rows % number == 0), None)
    if divisor is None:
        return None
    accumulated = plan.trainer.gradient_accumulation_steps * divisor
    trainer = replace(plan.trainer, batch_size=rows // divisor, gradient_accumulation_steps=accumulated)
    return replace(plan, trainer=freeze(trainer))


def _checkpoint_settings(this: Attempt) -> CheckpointSettings | None:
    """Where this run's checkpoints are, and how often they are written; None: shards are not checkpointed."""
    strategy, options = this.plan.trainer.parallel.strategy, this.options
    if not can_checkpoint(strategy):
        this.note(
            f"trainer.parallel.strategy={strategy.value} cannot checkpoint: an interrupted run restarts from the "
            "beginning"
        )
        return None
    seconds = None if options.checkpoint_minutes is None else 60 * options.checkpoint_minutes
    return CheckpointSettings(
        this.checkpoints, this.record.code.version, seconds, options.checkpoint_steps, options.pause_after
    )


def _detach_from_base(model: "PeftModel", base: Base) -> None:
    """Give base weights that the method trains in place (``lora.bias=all``) storage of their own."""
    shared = {parameter.data_ptr() for parameter in base.model.parameters()}
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.data_ptr() in shared:
            parameter.data = parameter.data.clone()


def _batches(rows: "Sequence[TokenizedRow]", size: int, pad_id: int) -> Iterator[dict[str, torch.Tensor]]:
    """The training rows in their order, for methods that look at data before they train."""
    for start in range(0, len(rows), size):
        yield collate(rows[start : start + size], pad_id, "right")
