"""The one place where values of a run enter its record: ``fill(value, record)``, by the type of the value."""

import math
from functools import singledispatch
from typing import Any

from harness.adapters.save_load import SavedAdapter
from harness.models import quantization
from harness.pipeline.values import (
    Attached,
    AuditedRows,
    Baseline,
    Predictions,
    Scored,
    SharedBase,
    SmallerBatch,
    Trained,
)
from harness.record import provenance, store
from harness.record.run_record import Adapter, RunRecord, Training, Unset
from harness.record.store import add_note
from harness.runtime import distributed, threads
from harness.runtime.threads import Threads
from harness.scoring.score import Scores
from harness.training.distillation import Teacher
from harness.training.packed.member import Packed


@singledispatch
def fill(value: Any, record: RunRecord) -> None:
    """Put what a step made into the record."""
    raise TypeError(f"the record has no place for {type(value).__name__}")


@fill.register
def _(value: Threads, record: RunRecord) -> None:
    record.inferred["threads_rule"] = value.why
    cores = math.floor(threads.usable_cores())
    if value.busy and value.count < cores:
        which = f"{value.count} of {cores} threads: {value.busy:.1f} cores are in use by other processes"
        add_note(record, f"computing with {which}; trainer.threads sets another number", shared=True)


@fill.register
def _(value: SharedBase, record: RunRecord) -> None:
    base = value.base
    record.times_s.load = value.seconds
    record.device = provenance.device_info(str(base.device)) | {"processes": distributed.processes()}
    record.memory_bytes.base = quantization.storage_bytes(base.model)
    record.inferred |= {"device": str(base.device), "dtype": str(base.dtype).removeprefix("torch.")}
    if base.pruned_share is not None:
        record.inferred["pruned_share"] = base.pruned_share
    record.inferred["base_weights"] = value.checksum
    for note in base.notes:
        add_note(record, note, shared=True)


@fill.register
def _(value: AuditedRows, record: RunRecord) -> None:
    record.times_s.tokenize = value.prepared.seconds
    record.rows = value.prepared.rows
    record.audit = value.audit
    record.inferred |= {"stop_ids": list(value.stops), "trained_end_id": value.prepared.end_id}
    for note in value.prepared.notes + value.notes:
        add_note(record, note, shared=True)


@fill.register
def _(value: Baseline, record: RunRecord) -> None:
    record.times_s.score_before = value.seconds
    record.scores.before = value.scores.values
    _fill_answers("before", value.scores, record)


@fill.register
def _(value: Teacher, record: RunRecord) -> None:
    add_note(record, value.note)


@fill.register
def _(value: Attached, record: RunRecord) -> None:
    record.inferred |= value.inferred
    for note in value.notes:
        add_note(record, note)


@fill.register
def _(value: SmallerBatch, record: RunRecord) -> None:
    trainer = value.plan.trainer
    size, passes = trainer.batch_size, trainer.gradient_accumulation_steps
    retry = (
        f"training again with {size} rows per pass and {passes} passes per step, which is the same training but for "
        "rounding and for what a pass draws at random (dropout, gates)"
    )
    add_note(record, f"out of memory ({value.reason}): {retry}")
    record.inferred |= {"batch_size": size, "gradient_accumulation_steps": passes}


@fill.register
def _(value: Trained, record: RunRecord) -> None:
    result, counts = value.result, value.result.parameters
    record.parameters.total, record.parameters.trainable = counts.total, counts.trainable
    record.parameters.share = counts.share
    record.times_s.train = result.step_seconds
    record.memory_bytes.train_peak, record.memory_bytes.kind = value.peak_bytes, value.peak_kind
    record.audit |= {
        "trained_supervised_tokens": result.supervised_tokens,
        "trained_prompt_tokens": result.prompt_tokens,
        "trained_padding_tokens": result.padding_tokens,
    }
    record.training = Training(
        optimizer_steps=result.optimizer_steps,
        tokens=result.text_tokens,
        tokens_per_s=result.tokens_per_s,
        best_step=result.best_step,
        curve=result.curve,
        validation=result.validation,
        figures=value.figures,
    )
    if result.stopped_early is not None:
        record.training.stopped_early = result.stopped_early.as_dict()
        add_note(record, result.stopped_early.words)


@fill.register
def _(value: Packed, record: RunRecord) -> None:
    for note in value.notes:
        add_note(record, note)
    if value.runs == 1:
        return
    record.packed = {
        "runs": value.runs,
        "others": sorted(value.others),
        "passes": value.passes,
        "passes_alone": value.alone,
        "waited_s": value.waited_s,
    }
    add_note(
        record,
        f"up to {value.runs} runs trained in one pass (hydra/launcher=packed): the training time of each is its share, "
        "the peak of memory that of all",
        shared=True,
    )


@fill.register
def _(value: SavedAdapter, record: RunRecord) -> None:
    record.adapter = Adapter(store.ADAPTER, value.bytes, value.files, value.sha256)
    record.parameters.stored, record.parameters.trainable_final = value.numbers, value.trainable_final


@fill.register
def _(value: Scored, record: RunRecord) -> None:
    record.times_s.score_after = value.seconds
    record.memory_bytes.score_peak = value.peak_bytes
    record.scores.after, record.scores.signatures = value.scores.values, value.scores.signatures
    if value.scores.definitions:
        record.scores.definitions = value.scores.definitions
    _fill_answers("after", value.scores, record)


def _fill_answers(when: str, scores: Scores, record: RunRecord) -> None:
    """How many answers were cut, and how they had to be batched."""
    if scores.cut is not None:
        limit = record.plan["scoring"]["generation"]["max_new_tokens"]
        record.scores.cut |= {when: scores.cut, "of": len(scores.answers), "limit": limit}
    if scores.errors:
        record.scores.errors = _with(record.scores.errors, when, scores.errors)
    if scores.details:
        record.scores.details = _with(record.scores.details, when, scores.details)
    for note in scores.notes:
        add_note(record, f"scoring {when}: {note}", shared=when == "before")


def _with(known: dict[str, Any] | Unset, when: str, found: dict[str, Any]) -> dict[str, Any]:
    return ({} if isinstance(known, Unset) else known) | {when: found}


@fill.register
def _(value: Predictions, record: RunRecord) -> None:
    record.predictions = value.name
