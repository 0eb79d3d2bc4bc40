"""Score an adapter from elsewhere by the protocol of a plan; its record stands beside those of our runs."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.adapters.external import load_external, other_base, other_template, reads_prompts_apart
from harness.errors import DataFault
from harness.models.peft_adapters import ExternalAdapter
from harness.pipeline import steps
from harness.pipeline.cache import ProcessCache
from harness.pipeline.fill import fill
from harness.pipeline.rows import choice_faults, cut_warning, prepare_rows
from harness.pipeline.values import AuditedRows, Baseline, Scored
from harness.plan.spec import Options, Plan, digest
from harness.record import provenance, store
from harness.record.labels import Labels
from harness.record.run_record import RunRecord, Training
from harness.runtime import memory, threads
from harness.scoring import lm_harness
from harness.scoring import score as scoring_score
from harness.scoring.batching import needs_equal_lengths
from harness.scoring.judging import require_judge
from harness.trackers.base import NoRun


def fingerprint_of(plan: Plan, adapter: ExternalAdapter) -> str:
    """The same content scored by the same protocol has one fingerprint, wherever its files are."""
    return digest([plan.protocol, adapter.sha256])


def score_adapter(plan: Plan, adapter: ExternalAdapter, options: Options, cache: ProcessCache) -> dict[str, Any]:
    """The record of the adapter under the plan's protocol; a finished one of this code version is not made again.

    Raises:
        ModelFault: the adapter does not fit the base.
        DataFault: rows cannot be read, or the scored split is empty.
    """
    fingerprint = fingerprint_of(plan, adapter)
    former = store.read_record(options.runs_dir, fingerprint)
    finished = former is not None and former["status"] == "finished" and not options.rerun
    if former is not None and finished and former["code"]["version"] == provenance.code_version():
        return former
    record = _start(plan, adapter, options, fingerprint, former)
    try:
        _score(plan, adapter, options, cache, record)
    except BaseException as error:
        record.mark_failed(error)
        store.write_record(options.runs_dir, record)
        raise
    record.mark_finished()
    store.write_record(options.runs_dir, record)
    return record.as_dict()


def _start(
    plan: Plan, adapter: ExternalAdapter, options: Options, fingerprint: str, former: Mapping[str, Any] | None
) -> RunRecord:
    """Its plan is the protocol, with the adapter's own settings; how it was trained is not known."""
    seed = plan.sampling_seed or 0
    kept = replace(plan, method=adapter.method, settings=dict(adapter.settings), seed=seed).as_dict()
    kept |= {"learning_rate": None, "inputs": {**plan.inputs, "adapter": adapter.sha256}}
    seeds = {"seed": plan.sampling_seed, "data_split_seed": plan.data.split_seed}
    record = store.start_record(options.runs_dir, fingerprint, adapter.method, kept, seeds)
    labels = Labels(options.note, options.tags).added_to(former)
    record.note, record.tags = labels["note"], labels["tags"]
    record.external = adapter.as_dict()
    return record


def _score(plan: Plan, adapter: ExternalAdapter, options: Options, cache: ProcessCache, record: RunRecord) -> None:
    computing = threads.for_run(options.threads, None)
    shared = steps.load(plan, cache, computing.count)
    fill(computing, record)
    fill(shared, record)
    record.device["threads"] = computing.count
    rows = _rows(plan, cache, shared.base)
    fill(rows, record)
    template = plan.scoring.template or plan.data.template
    for note in (other_base(adapter, plan.model), other_template(adapter, template)):
        if note:
            store.add_note(record, note)
    code = record.code.version
    before: Baseline = steps.baseline(plan, cache, shared, rows, options.runs_dir, code)
    fill(before, record)
    model = load_external(shared.base, adapter)
    record.parameters.total = sum(parameter.numel() for parameter in model.parameters())
    record.parameters.trainable = record.parameters.stored = adapter.numbers
    record.parameters.share = adapter.numbers / record.parameters.total
    record.times_s.train, record.memory_bytes = None, replace(record.memory_bytes, train_peak=None, kind=None)
    record.training = Training(optimizer_steps=0, tokens=0, tokens_per_s=None, curve=[], validation=[])
    started = time.perf_counter()
    apart = reads_prompts_apart(model) or needs_equal_lengths(shared.base.model)
    with memory.peak_memory(shared.base.device.type) as peak:
        scores = scoring_score.score(
            model,
            shared.base.tokenizer,
            rows.scored[plan.scoring.split],
            rows.prepared.held_out,
            plan.scoring,
            stops=rows.stops,
            equal_lengths=apart,
            seed=plan.seed,
        )
    after = Scored(scores, time.perf_counter() - started, peak.bytes)
    fill(after, record)
    folder = store.record_path(options.runs_dir, record.fingerprint).parent
    scored = rows.scored[plan.scoring.split]
    fill(steps.write_predictions(folder, NoRun(), scored, before, after), record)
    changed = cache.check_base()
    if changed:
        store.add_note(record, changed)


def _rows(plan: Plan, cache: ProcessCache, base: Any) -> AuditedRows:
    """The rows as they are scored; nothing is trained, so only the scored split has to have some."""
    prepared = prepare_rows(plan, base)
    scored = prepared.scored[plan.scoring.split]
    if not scored:
        raise DataFault(
            f"data.path={plan.data.path} leaves no row for the split {plan.scoring.split}; add rows, or change "
            "data.splits, data.fractions or data.limits"
        )
    for fault in choice_faults(scored, plan):
        raise DataFault(fault)
    lm_harness.require_tasks(plan.scoring.lm_eval)
    require_judge(plan.scoring.judge)
    warning = cut_warning(prepared, plan)
    return AuditedRows(prepared, {}, (warning,) if warning else ())
