"""Successive halving: which configurations of a group go on after each rung, from their validation losses alone.

A rung is an evaluation of the validation loss during training. At each rung the configurations that are still in the
race are ranked by their loss, averaged over their seeds, and a share of them goes on; the others are pruned. The rule
needs no order of arrival, so that the verdicts of a sweep are the same however many workers it has, and whether it
was interrupted or not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NEAR = 1e-9  # shares such as 0.1 / 0.5 are not exact


@dataclass(frozen=True)
class Rule:
    """``sweep.halving``: the share that goes on, the share of the training at the first rung, and the margin."""

    keep: float
    first: float
    margin: float

    def rungs(self, evaluations: int) -> tuple[int, ...]:
        """Numbers of the evaluations, from 1, at which runs with so many of them are judged; never the last one.

        The first is at or after ``first`` of the training, the next ones at ``first / keep`` and so on.
        """
        found, share = list[int](), self.first
        while share < 1 - NEAR:
            found.append(max(math.ceil(share * evaluations - NEAR), 1))
            share /= self.keep
        return tuple(number for number in dict.fromkeys(found) if number < evaluations)

    def survivors(self, losses: Mapping[str, float]) -> tuple[set[str], float]:
        """Who goes on, and the largest loss that does; equal losses share their fate."""
        count = max(1, math.ceil(len(losses) * self.keep - NEAR))
        last = sorted(losses.values())[count - 1]
        limit = last + self.margin * abs(last)
        return {name for name, loss in losses.items() if loss <= limit}, limit


@dataclass(frozen=True)
class Entrant:
    """One run of a configuration, as far as it has come."""

    run: str
    configuration: str  # equal for runs that differ in their seed alone
    evaluations: int  # of the whole run
    losses: tuple[float, ...]  # validation losses so far, one per evaluation
    ended: bool = False  # whether it has finished
    failed: bool = False


@dataclass(frozen=True)
class Verdict:
    """Why a configuration was pruned."""

    rung: int  # from 0
    loss: float | None  # mean over its seeds; None if a run of it failed
    limit: float | None  # the largest loss that went on
    rank: int | None
    compared: int
    kept: int


@dataclass(frozen=True)
class Standing:
    """The state of a race."""

    pruned: Mapping[str, Verdict]  # by configuration
    due: Mapping[str, int | None]  # by run: train it up to this evaluation; None: to its end
    rung: int  # that is being reached; the number of rungs on the way to the end


def stand(entrants: Sequence[Entrant], rule: Rule) -> Standing:
    """Judge every rung that all who are in the race have reached, and say how far to train whom.

    A configuration whose runs have failed is not compared, and its other runs end. One that is alone in the race goes
    to the end.
    """
    runs: dict[str, list[Entrant]] = {}
    for each in entrants:
        runs.setdefault(each.configuration, []).append(each)
    levels = max((len(rule.rungs(each.evaluations)) for each in entrants), default=0)
    racing, pruned = list(runs), dict[str, Verdict]()
    for rung in range(levels):
        if len(racing) < 2:
            break
        whole = [name for name in racing if not any(each.failed for each in runs[name])]
        waiting = [each for name in whole for each in runs[name] if not _reached(each, rung, rule)]
        if waiting:
            return Standing(pruned, {each.run: _rung(each, rung, rule) for each in waiting}, rung)
        losses = {name: _mean(runs[name], rung, rule) for name in whole}
        if not losses:
            break
        going, limit = rule.survivors(losses)
        ranked = sorted(losses, key=lambda name: losses[name])
        for name in racing:
            if name in going:
                continue
            loss = losses.get(name)
            rank = None if loss is None else 1 + sum(losses[other] < loss for other in ranked)
            pruned[name] = Verdict(rung, loss, limit, rank, len(losses), len(going))
        racing = [name for name in racing if name in going]
    left = [each for name in racing for each in runs[name] if not each.ended and not each.failed]
    return Standing(pruned, {each.run: None for each in left}, levels)


def _rung(entrant: Entrant, rung: int, rule: Rule) -> int:
    """The evaluation of this rung; the last one for runs that have fewer rungs than others."""
    numbers = rule.rungs(entrant.evaluations)
    return numbers[rung] if rung < len(numbers) else entrant.evaluations


def _reached(entrant: Entrant, rung: int, rule: Rule) -> bool:
    return entrant.ended or len(entrant.losses) >= _rung(entrant, rung, rule)


def _mean(runs: Sequence[Entrant], rung: int, rule: Rule) -> float:
    # A finished run of fewer steps than evaluations has fewer of them.
    losses = [each.losses[min(_rung(each, rung, rule), len(each.losses)) - 1] for each in runs]
    return sum(losses) / len(losses)


def pruned_entry(verdict: Verdict, entrant: Entrant, step: int, steps: int | None, rule: Rule) -> dict[str, Any]:
    """What the record of a pruned run says, which has done ``step`` of its ``steps`` optimizer steps."""
    return {
        "evaluation": _rung(entrant, verdict.rung, rule),
        "of": entrant.evaluations,
        "step": step,
        "steps": steps,
        "loss": verdict.loss,
        "limit": verdict.limit,
        "rank": verdict.rank,
        "compared": verdict.compared,
        "kept": verdict.kept,
        "rule": dict(vars(rule)),
    }
