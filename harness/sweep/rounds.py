"""sweep.prune=halving: the runs of a method race each other from rung to rung, and those that lose end early.

Within one method, model, data set and protocol, because across methods halving favors those that start fast; with
``select.per`` within each of its values. The state is in the records: a run that waits for a verdict is
``interrupted`` with a checkpoint, one that has lost is ``pruned``. So the same command resumes a race.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.schema import Keep, Prune
from harness.plan.spec import digest, effective_settings
from harness.record import locks, store
from harness.record.readings import prune_reason
from harness.report import alike
from harness.report.fields import flat, plan_fields
from harness.sweep.cells import Cell
from harness.sweep.halving import Entrant, Rule, Standing, Verdict, pruned_entry, stand
from harness.sweep.outcome import Outcome, Status
from harness.sweep.reuse import is_result, other_code
from harness.sweep.worklist import Dispatch, Worklist
from harness.training.checkpoints import CHECKPOINTS, remove_checkpoints

log = logging.getLogger(__name__)

MARGIN = 0.01  # of grids; docs/benchmarks-notes.md has what it costs and what it spares

Judge = Callable[[Sequence[Cell], Sequence[Entrant], Rule], Standing]
Goal = tuple[Cell, int | None]  # a run, and the evaluation up to which it is trained; None: to its end


class Race:
    """One command's race of the runs of a sweep.

    Args:
        cells: of unique plans, in order.
        earlier: by fingerprint, outcomes that are there before the race begins.
        judge: says who of a group goes on.
    """

    def __init__(self, cells: Sequence[Cell], earlier: Mapping[str, Outcome], judge: Judge | None = None) -> None:
        groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            groups[group_of(cell)].append(cell)
        self._groups, self._judge_runs = list(groups.values()), judge or judge_all
        self._margin = MARGIN if self._judge_runs is judge_all else 0.0  # of a rule that gives none
        self._outcomes = dict(earlier)
        self._asked: set[tuple[str, int | None]] = set()

    def run(self, dispatch: Dispatch, folder: Path, worklist: Worklist) -> Iterator[Outcome]:
        """Outcomes as they come: ``paused`` at a rung, ``pruned`` after it, and those of runs that reach their end."""
        worklist.at_most = True
        while not worklist.over:
            goals, rung = list[Goal](), None
            for group in self._groups:
                verdicts, own, reaching = self._judge(group)
                yield from self._prune(group, verdicts, worklist)
                goals += own
                rung = reaching if rung is None or reaching < rung else rung
            if lost := [goal for goal in goals if self._key(goal) in self._asked]:
                yield from self._fail(lost)
                continue
            if not goals:
                return
            self._asked |= set(map(self._key, goals))
            paused = any(evaluation is not None for _, evaluation in goals)
            worklist.begin_round(f"rung {(rung or 0) + 1}: " if paused else "", len(goals))
            for outcome in worklist.follow([_up_to(*goal) for goal in goals], dispatch, folder):
                self._outcomes[outcome.fingerprint] = outcome
                yield outcome

    def _judge(self, group: Sequence[Cell]) -> tuple[dict[str, Verdict], list[Goal], int]:
        """The verdicts on runs of this group, by fingerprint, how far to train the others, and the rung they reach."""
        entrants = [self._entrant(cell) for cell in group]
        standing = self._judge_runs(group, entrants, rule_of(group[0], self._margin))
        lost = {
            each.run: standing.pruned[each.configuration]
            for each in entrants
            if each.configuration in standing.pruned and not each.ended and not each.failed
        }
        due = standing.due
        return lost, [(cell, due[name]) for cell in group if (name := cell.plan.fingerprint) in due], standing.rung

    def _entrant(self, cell: Cell) -> Entrant:
        outcome = self._outcomes.get(cell.plan.fingerprint)
        return entrant_of(cell, failed=outcome is not None and outcome.failed)

    def _prune(self, group: Sequence[Cell], verdicts: Mapping[str, Verdict], worklist: Worklist) -> Iterator[Outcome]:
        for cell in group:
            fingerprint = cell.plan.fingerprint
            if fingerprint not in verdicts:
                continue
            reason = prune(cell, self._entrant(cell), verdicts[fingerprint], rule_of(cell, self._margin))
            outcome = Outcome(fingerprint, Status.pruned, reason)
            if self._outcomes.get(fingerprint) != outcome:
                log.info("%s (%s) pruned: %s", worklist.label(cell), fingerprint, reason)
                self._outcomes[fingerprint] = outcome
                yield outcome

    def _fail(self, goals: Sequence[Goal]) -> Iterator[Outcome]:
        """Runs that were trained to a rung and are not there: they would be trained to it forever."""
        for cell, evaluation in goals:
            reason = f"it was trained up to evaluation {evaluation or 'the last'}, and its record does not show that"
            outcome = self._outcomes[cell.plan.fingerprint] = Outcome(cell.plan.fingerprint, Status.failed, reason)
            yield outcome

    @staticmethod
    def _key(goal: Goal) -> tuple[str, int | None]:
        return goal[0].plan.fingerprint, goal[1]


def judge_all(group: Sequence[Cell], entrants: Sequence[Entrant], rule: Rule) -> Standing:
    """Successive halving of a grid, whose runs are judged together."""
    return stand(entrants, rule)


def entrant_of(cell: Cell, failed: bool = False) -> Entrant:
    """The run of a cell, as far as its record shows it."""
    record = progress_of(cell)
    return Entrant(
        run=cell.plan.fingerprint,
        configuration=_configuration(cell),
        evaluations=_evaluations(cell),
        losses=tuple(point["loss"] for point in record["training"].get("validation") or ()) if record else (),
        ended=record is not None and record["status"] == "finished",
        failed=failed,
    )


def progress_of(cell: Cell) -> dict[str, Any] | None:
    """The record that says how far the plan's training has come; None if it counts as not begun.

    One of another code version counts only if it is finished and ``sweep.reuse=any``, and with ``rerun=true`` only one
    that was made since the command began.
    """
    record = store.read_record(cell.options.runs_dir, cell.plan.fingerprint, curve=False)
    if record is None or (cell.options.rerun and record["attempt"] <= (cell.attempts or 0)):
        return None
    if record["status"] == "finished":
        return record if is_result(cell, record) else None
    waiting = record["status"] in ("interrupted", "pruned") and other_code(record) is None
    return record if waiting and record["training"].get("validation") else None


def was_pruned(cell: Cell) -> bool:
    """Whether an earlier command pruned the plan, and this one may leave it so."""
    record = None if cell.options.prune is Prune.none else progress_of(cell)
    return record is not None and record["status"] == "pruned"


def prune(cell: Cell, entrant: Entrant, verdict: Verdict, rule: Rule) -> str:
    """Mark the record of a run that has lost; returns why it did.

    A run that another process is working on stays as it is: that process may run it for other reasons.
    """
    record = progress_of(cell)
    whole = None if record is None else record["inferred"].get("optimizer_steps")
    done = 0 if record is None else int(record["training"].get("optimizer_steps") or 0)
    entry = pruned_entry(verdict, entrant, done, whole, rule)
    lock = locks.take_lock(cell.folder)
    if lock is not None:
        with lock:
            record = cell.read_record()
            if record is not None and record["status"] == "interrupted" and progress_of(cell) is not None:
                store.write_record(cell.options.runs_dir, record | {"status": "pruned", "pruned": entry, "error": None})
                if cell.options.keep is Keep.record:
                    remove_checkpoints(cell.folder / CHECKPOINTS)
    return prune_reason(entry)


def _up_to(cell: Cell, evaluation: int | None) -> Cell:
    """The cell, trained up to this evaluation; one that has begun is continued even with ``rerun=true``."""
    begun = progress_of(cell) is not None
    return replace(cell, options=replace(cell.options, pause_after=evaluation, rerun=cell.options.rerun and not begun))


def rule_of(cell: Cell, margin: float) -> Rule:
    """The rule that the command gives; ``margin``: where it gives none."""
    halving = cell.options.halving
    return Rule(halving.keep, halving.first, margin if halving.margin is None else halving.margin)


def group_of(cell: Cell) -> str:
    """Equal for runs that race each other."""
    plan = cell.plan.as_dict()
    fields = dict(flat(plan)) | plan_fields(plan)
    names = cell.options.select.per
    per = {name: fields.get(name) for name in ([names] if isinstance(names, str) else names)}
    kind = plan["settings"].get("type") if plan["method"] == "library" else None
    return digest([alike.comparable(effective_settings(plan)), plan["method"], kind, per])


def _configuration(cell: Cell) -> str:
    """Equal for plans that differ in their seed alone."""
    return digest({key: value for key, value in effective_settings(cell.plan.as_dict()).items() if key != "seed"})


def _evaluations(cell: Cell) -> int:
    trainer = cell.plan.trainer
    return trainer.evaluations if trainer.max_steps is None else min(trainer.evaluations, trainer.max_steps)
