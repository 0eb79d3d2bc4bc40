"""The steps of one run besides tuning; each takes what it uses and returns what it made, with its cost."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.adapters import save_load
from harness.adapters.save_load import SavedAdapter
from harness.config.schema import Objective
from harness.data.audit import label_audit
from harness.data.tokenize import TokenizedRow
from harness.models.base import Base
from harness.pipeline.cache import ProcessCache
from harness.pipeline.rows import cut_warning
from harness.pipeline.values import AuditedRows, Baseline, Predictions, Scored, SharedBase, Tuned
from harness.plan.spec import Plan
from harness.record import store
from harness.record.files import write_jsonl
from harness.runtime import distributed, memory
from harness.scoring import custom, lm_harness
from harness.scoring import score as scoring_score
from harness.scoring.batching import needs_equal_lengths
from harness.scoring.judging import require_judge
from harness.scoring.losses import Told, untold
from harness.trackers.base import TrackerRun
from harness.trackers.send import send_predictions
from harness.training.preferences import both

if TYPE_CHECKING:
    from peft import PeftModel


PREDICTIONS = "predictions.jsonl"


def load(plan: Plan, cache: ProcessCache, threads: int) -> SharedBase:
    """The base model, shared by the runs of this process, which compute with so many threads."""
    torch.set_num_threads(threads)
    shared = cache.base(plan)
    if shared.base.device.type == "cuda":
        torch.cuda.set_device(shared.base.device)
    return shared


def tokenize(plan: Plan, cache: ProcessCache, base: Base) -> AuditedRows:
    """Rows as tokens, with the label audit of the training split and what to know before training."""
    rows, objective = cache.rows(plan, base), plan.trainer.objective
    distributed.broadcast_from_main(lambda: lm_harness.require_tasks(plan.scoring.lm_eval))
    distributed.broadcast_from_main(lambda: require_judge(plan.scoring.judge))
    trained = rows.splits["train"]
    audit = label_audit(both(trained) if objective is Objective.dpo else trained, rows.refused, objective)
    if objective is Objective.dpo:
        audit["rows"] = len(trained)
    notes = [cut_warning(rows, plan), *custom.tried(plan.scoring.metrics, rows.scored[plan.scoring.split])]
    if objective is Objective.lesson:
        notes.append("trainer.objective=lesson: prompts as the lesson published them (data.template=lesson_exact)")
    weights = [row.row.weight for row in rows.splits["train"]]
    if any(weight != 1.0 for weight in weights):
        mean = sum(weights) / len(weights)
        audit["row_weights"] = f"{min(weights):g} to {max(weights):g}, mean {mean:g}"
        notes.append(f"training rows count by their weights ({audit['row_weights']}); validation and scores do not")
    return AuditedRows(rows, {"labels": objective.value, **audit}, tuple(filter(None, notes)))


def baseline(
    plan: Plan,
    cache: ProcessCache,
    shared: SharedBase,
    rows: AuditedRows,
    runs_dir: Path,
    code: str,
    told: Told = untold,
) -> Baseline:
    """Scores of the untouched base under this plan's protocol."""
    started = time.perf_counter()
    before, reused = distributed.broadcast_from_main(
        lambda: cache.baseline(plan, shared, rows.prepared, runs_dir, code, told)
    )
    return Baseline(before, 0.0 if reused else time.perf_counter() - started)


def save(plan: Plan, tuned: Tuned, folder: Path, require_held: Callable[[], None]) -> SavedAdapter:
    """The adapter in PEFT's format, with the template that it was trained with; only the main process writes it.

    Raises:
        HeldByAnotherProcess: the run is no longer this process's to publish.
    """

    def saved() -> SavedAdapter:
        require_held()
        return save_load.save_adapter(tuned.write, folder / store.ADAPTER, plan, tuned.model)

    return distributed.broadcast_from_main(saved)


def score(plan: Plan, model: "PeftModel", base: Base, rows: AuditedRows, told: Told = untold) -> Scored:
    """Scores of the tuned model, by the protocol of the baseline."""
    started = time.perf_counter()
    with memory.peak_memory(base.device.type) as peak:
        after = distributed.broadcast_from_main(
            lambda: scoring_score.score(
                model,
                base.tokenizer,
                rows.scored[plan.scoring.split],
                rows.prepared.held_out,
                plan.scoring,
                stops=rows.stops,
                equal_lengths=needs_equal_lengths(base.model, plan.method, plan.settings),
                seed=plan.seed,
                told=told,
            )
        )
    return Scored(after, time.perf_counter() - started, peak.bytes)


def write_predictions(
    folder: Path, tracker: TrackerRun, scored: Sequence[TokenizedRow], before: Baseline, after: Scored
) -> Predictions:
    """Write prompt, reference, both answers and their scores of every row as JSONL; the tracker gets the first ones."""
    if not after.scores.answers:
        return Predictions(None)
    answers = zip(scored, before.scores.answers, after.scores.answers, strict=True)
    rows = [
        {"prompt": example.prompt, **_references(example), "before": old, "after": new}
        | _row_scores(number, before.scores, after.scores)
        | _row_choices(number, example, before.scores, after.scores)
        for number, (example, old, new) in enumerate(answers)
    ]
    write_jsonl(folder / PREDICTIONS, rows)
    send_predictions(tracker, rows)
    return Predictions(PREDICTIONS)


def _row_scores(number: int, before: scoring_score.Scores, after: scoring_score.Scores) -> dict[str, Any]:
    """The scores of one row, before and after training; none if no score is a mean over rows."""
    both = {"before": before.rows, "after": after.rows}
    found = {when: {name: values[number] for name, values in rows.items()} for when, rows in both.items()}
    return {"scores": found} if any(found.values()) else {}


def _row_choices(
    number: int, example: TokenizedRow, before: scoring_score.Scores, after: scoring_score.Scores
) -> dict[str, Any]:
    """The options of one row and what both models made of them; none if no metric asks for them."""
    if not after.choices:
        return {}
    return {
        "options": list(example.row.options),
        "choices": {"before": before.choices[number], "after": after.choices[number]},
    }


def _references(example: TokenizedRow) -> dict[str, Any]:
    """The row's reference, and all of them if there are more."""
    texts = example.row.all_references
    return {"reference": texts[0]} | ({"references": list(texts)} if len(texts) > 1 else {})
