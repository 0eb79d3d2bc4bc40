"""Whether runs agree with the rules of a paper: each rule, and all of them together.

A rule agrees, or does not, only beyond the noise; all else is ``underpowered``. All rules must agree before the shape
does, which needs no correction; that one of several fails is held to 5 % over all of them (Bonferroni).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.report.shape.grammar import Flat, Gap, Order, Place, Rule, Trend, Within
from harness.report.shape.values import lower_is_better
from harness.report.statistics.model import ALPHA

if TYPE_CHECKING:
    from harness.report.shape.evidence import Estimate, Evidence

Verdict = Literal["agrees", "does not agree", "underpowered"]
SIDE = ALPHA / 2


@dataclass(frozen=True)
class Judged:
    """One rule held to the runs."""

    rule: str  # as written
    verdict: Verdict
    measured: str  # the numbers, with intervals; or what is missing
    test: str  # what decided


def judge_rule(text: str, rule: Rule, evidence: "Evidence", rules: int = 1) -> Judged:
    """The verdict on one of so many rules."""
    from harness.report.shape.evidence import Insufficient

    try:
        match rule:
            case Within():
                return _within(text, rule, evidence, rules)
            case Order():
                return _order(text, rule, evidence, rules)
            case Trend():
                return _trend(text, rule, evidence, rules)
            case Flat():
                return _flat(text, rule, evidence, rules)
            case Place():
                return _place(text, rule, evidence, rules)
    except Insufficient as missing:
        return Judged(text, "underpowered", str(missing), "not tested")


def verdict_of(judged: Sequence[Judged]) -> Verdict:
    """The verdict on the shape, which has all of these rules."""
    found = {each.verdict for each in judged}
    if "does not agree" in found:
        return "does not agree"
    return "agrees" if found == {"agrees"} else "underpowered"


def _within(text: str, rule: Within, evidence: "Evidence", rules: int) -> Judged:
    number = evidence.number(rule.number)
    below, above = float((number.draws < rule.low).mean()), float((number.draws > rule.high).mean())
    inside = float(((number.draws >= rule.low) & (number.draws <= rule.high)).mean())
    agrees = below <= SIDE and above <= SIDE and inside >= 1 - ALPHA
    verdict = _verdict(agrees, max(below, above) >= 1 - SIDE / rules)
    return Judged(text, verdict, _shown(number), f"95 % interval inside {rule.low:g} to {rule.high:g}")


def _order(text: str, rule: Order, evidence: "Evidence", rules: int) -> Judged:
    left, right = evidence.number(rule.left), evidence.number(rule.right)
    smaller, larger = (left, right) if rule.sign == "<" else (right, left)
    right_way, wrong_way = _share_below(smaller, larger), _share_below(larger, smaller)
    verdict = _verdict(right_way >= 1 - SIDE, wrong_way >= 1 - SIDE / rules)
    measured = f"{_shown(left)} {rule.sign} {_shown(right)}"
    return Judged(text, verdict, measured, f"the order holds in {right_way:.1%} of draws; 97.5 % are needed")


def _trend(text: str, rule: Trend, evidence: "Evidence", rules: int) -> Judged:
    if isinstance(rule.value, Gap):
        points, falls = evidence.gaps_along(rule.axis, rule.value), rule.kind == "falls"
    else:
        points = evidence.along(rule.axis, rule.value, rule.of)
        falls = rule.kind == "falls" or (rule.kind == "monotone" and lower_is_better(rule.value))
    pairs = list(itertools.combinations([point for _, point in points], 2))
    wrong = max(_share_below(two, one) if not falls else _share_below(one, two) for one, two in pairs)
    first, last = points[0][1], points[-1][1]
    whole = _share_below(last, first) if falls else _share_below(first, last)
    failed = wrong >= 1 - SIDE / (rules * len(pairs))
    measured = "; ".join(f"{value:g}: {_shown(point)}" for value, point in points)
    return Judged(
        text,
        _verdict(whole >= 1 - SIDE and not failed, failed),
        measured,
        f"from the first to the last value in {whole:.1%} of draws (97.5 % are needed), and no pair of "
        f"{len(pairs)} the other way beyond noise",
    )


def _flat(text: str, rule: Flat, evidence: "Evidence", rules: int) -> Judged:
    points = evidence.along(rule.axis, rule.metric, rule.of)
    pairs = list(itertools.combinations([point for _, point in points], 2))
    near = min(float((abs(two.draws - one.draws) < rule.margin).mean()) for one, two in pairs)
    apart = max(
        max(float((two.draws - one.draws > rule.margin).mean()), float((one.draws - two.draws > rule.margin).mean()))
        for one, two in pairs
    )
    verdict = _verdict(near >= 1 - ALPHA, apart >= 1 - SIDE / (rules * len(pairs)))
    measured = "; ".join(f"{value:g}: {_shown(point)}" for value, point in points)
    return Judged(text, verdict, measured, f"each of {len(pairs)} differences within {rule.margin:g} in 95 % of draws")


def _place(text: str, rule: Place, evidence: "Evidence", rules: int) -> Judged:
    import numpy as np

    points = evidence.of_arms(rule.metric)
    draws = np.stack([point.draws for point in points])
    lowest = (rule.which == "first") == lower_is_better(rule.metric)
    found = draws.argmin(0) if lowest else draws.argmax(0)
    wanted = [place for place, arm in enumerate(evidence.arms) if arm in rule.arms]
    share = float(np.isin(found, wanted).mean())
    share = 1 - share if rule.negated else share
    ranked = sorted(zip(evidence.arms, points, strict=True), key=lambda each: each[1].value, reverse=not lowest)
    measured = "; ".join(f"{arm} {_shown(point)}" for arm, point in ranked)
    verdict = _verdict(share >= 1 - SIDE, share <= SIDE / rules)
    return Judged(text, verdict, measured, f"so in {share:.1%} of draws; 97.5 % are needed")


def _verdict(agrees: bool, fails: bool) -> Verdict:
    return "agrees" if agrees else "does not agree" if fails else "underpowered"


def _share_below(smaller: "Estimate", larger: "Estimate") -> float:
    return float((smaller.draws < larger.draws).mean())


def _shown(number: "Estimate") -> str:
    """``0.081 (0.075 to 0.088)``; a number without uncertainty alone."""
    import numpy as np

    # Without interpolation: between two infinite draws there is nothing.
    known = np.sort(np.where(np.isnan(number.draws), np.inf, number.draws))
    low, high = known[int(SIDE * len(known))], known[int((1 - SIDE) * len(known)) - 1]
    if low == high:
        return f"{number.value:.4g}"
    return f"{number.value:.4g} ({low:.4g} to {high:.4g})"
