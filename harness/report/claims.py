"""What stage=claim finds: ``claim.json``, the line after each pair, and a paragraph for a paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.plan.claims import Claim
from harness.plan.spec import plain
from harness.report.statistics.sequential import (
    ALPHA,
    FEWEST_PAIRS,
    ConfidenceSequence,
    Relation,
    Verdict,
    confidence_sequence,
    pairs_to_go,
    verdict_of,
)
from harness.runtime.terminal import counted
from harness.scoring.catalog import SCORES

NAME = "claim.json"
VERSION = 1  # of claim.json

TEST = (
    "anytime-valid t-test on paired differences, Gaussian mixture over the standardized effect with variance 1 "
    "(arXiv:2208.07610; arXiv:2310.03722, section 4)"
)
ASSUMES = (
    "differences of pairs are independent and normal with one mean and one standard deviation; conditional on these "
    "rows, this model and this protocol"
)


@dataclass(frozen=True)
class Arm:
    """One side of a claim.

    Attributes:
        tried: by learning rate, the mean of the score that chose; None if a run of it has not finished.
        trainable: parameters; None if the claim is not at equal budget.
        fingerprints: of the runs that chose.
        budget: how near its size comes to ``budget.*``, in words; None without one.
    """

    name: str
    tried: Mapping[float, float | None]
    rate: float
    trainable: int | None
    fingerprints: tuple[str, ...]
    budget: str | None = None

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest of several, so that a better one may lie beyond."""
        return len(self.tried) > 1 and self.rate in (min(self.tried), max(self.tried))


@dataclass(frozen=True)
class Pair:
    """Two runs that share a seed."""

    seed: int
    better: float
    than: float
    fingerprints: tuple[str, str]


@dataclass(frozen=True)
class Setting:
    """What both arms share, in words and numbers."""

    model: str
    data: str
    split: str  # of the pairs
    tuning_split: str
    tuning_seeds: tuple[int, ...]
    code: str  # version of the sources


@dataclass(frozen=True)
class ClaimResult:
    """A claim with what is known about it after some pairs.

    Attributes:
        stopped: why there are no more pairs: the verdict, or what is spent; None while there may be more.
        runs: different runs, tuning included.
        seconds: of them, as their records say.
    """

    claim: Claim
    name: str
    setting: Setting
    better: Arm
    than: Arm
    pairs: tuple[Pair, ...] = ()
    runs: int = 0
    seconds: float = 0.0
    stopped: str | None = None

    @property
    def differences(self) -> list[float]:
        """Of each pair, by how much the first arm is better: positive for a lower loss and for a higher accuracy."""
        sign = -1.0 if SCORES[self.claim.metric].lower_is_better else 1.0
        return [sign * (pair.better - pair.than) for pair in self.pairs]

    @property
    def sequence(self) -> ConfidenceSequence | None:
        """Estimate and confidence sequence; None before the first pair."""
        return confidence_sequence(self.differences) if self.pairs else None

    @property
    def verdict(self) -> Verdict:
        """What the pairs say so far."""
        found = self.sequence
        if found is None:
            return Verdict.undecided
        return verdict_of(found, self.claim.relation, self.claim.margin)

    @property
    def expected_pairs(self) -> int | None:
        """How many more pairs a verdict takes if the differences go on as they are; None: unknown, or very many."""
        found = self.sequence
        if found is None:
            return None
        return pairs_to_go(found, self.claim.relation, self.claim.margin)

    def with_pair(self, pair: Pair) -> "ClaimResult":
        """The result with one more pair."""
        return replace(self, pairs=(*self.pairs, pair))

    def to_plain(self) -> dict[str, Any]:
        """The content of ``claim.json``."""
        found = self.sequence
        return {
            "version": VERSION,
            "name": self.name,
            "claim": {**plain(asdict(self.claim)), "text": self.claim.text},
            "verdict": self.verdict.value,
            "stopped": self.stopped,
            "estimate": None if found is None else found.mean,
            "interval": None if found is None or found.lower is None else [found.lower, found.upper],
            "sd": None if found is None else found.sd,
            "pairs": len(self.pairs),
            "expected_pairs": self.expected_pairs if self.stopped is None else None,
            "cost": {
                "runs": self.runs,
                "tuning_runs": len({*self.better.fingerprints, *self.than.fingerprints}),
                "seconds": round(self.seconds, 3),
            },
            "test": {"name": TEST, "assumes": ASSUMES, "alpha": ALPHA, "fewest_pairs": FEWEST_PAIRS},
            "setting": plain(asdict(self.setting)),
            "arms": {"better": _arm(self.better), "than": _arm(self.than)},
            "runs": [
                {**asdict(pair), "fingerprints": list(pair.fingerprints), "difference": difference}
                for pair, difference in zip(self.pairs, self.differences, strict=True)
            ],
            "paragraph": paragraph(self),
        }


def progress(result: ClaimResult) -> str:
    """The line after a pair: what it showed, what all of them say, and how many more are expected."""
    found, pair = result.sequence, result.pairs[-1]
    assert found is not None
    head = f"pair {found.pairs} (seed {pair.seed}): {result.differences[-1]:+.4g}; mean {found.mean:+.4g}"
    if found.lower is not None:
        head += f", between {found.lower:+.4g} and {found.upper:+.4g}"
    if result.verdict is not Verdict.undecided:
        return f"{head}; {result.verdict.value}"
    more = result.expected_pairs
    if not found.sd and found.pairs > 1:
        return f"{head}; all pairs differ by the same amount, about which the test says nothing"
    if more is None:
        return f"{head}; no verdict in sight" if found.pairs > 1 else f"{head}; the first pair forecasts nothing"
    fewest = "" if found.pairs >= FEWEST_PAIRS else f" (no verdict before pair {FEWEST_PAIRS})"
    return f"{head}; about {counted(max(more, 1), 'more pair')} expected{fewest}"


def paragraph(result: ClaimResult) -> str:
    """The result as a paragraph that could go into a paper."""
    parts = [_what(result), _sizes(result), _tuning(result), _pairs(result), _statement(result), _cost(result)]
    return " ".join(part for part in parts if part)


def _what(result: ClaimResult) -> str:
    claim, setting, score = result.claim, result.setting, SCORES[result.claim.metric]
    unit = f" ({score.unit}, {'lower' if score.lower_is_better else 'higher'} is better)"
    on = f"on {claim.metric}{unit} for {setting.model} on the {setting.split} rows of {setting.data}"
    if claim.relation is Relation.equal:
        return f"We tested whether {result.better.name} and {result.than.name} are equal within {claim.margin:g} {on}."
    by = f" by more than {claim.margin:g}" if claim.margin else ""
    return f"We tested whether {result.better.name} is better than {result.than.name}{by} {on}."


def _sizes(result: ClaimResult) -> str:
    arms = (result.better, result.than)
    if budgets := [arm.budget for arm in arms if arm.budget is not None]:
        return f"Their sizes follow from one budget ({'; '.join(budgets)})."
    if sizes := [f"{arm.name} {arm.trainable:,}" for arm in arms if arm.trainable is not None]:
        return f"They train about as many parameters ({', '.join(sizes)})."
    return ""


def _tuning(result: ClaimResult) -> str:
    setting = result.setting
    rates = len(result.better.tried)
    seeds = f"seed {setting.tuning_seeds[0]}"
    if len(setting.tuning_seeds) > 1:
        seeds = f"seeds {_seeds(setting.tuning_seeds)}"
    arms = (result.better, result.than)
    shown = " and ".join(f"{arm.rate:.3g} for {arm.name}" for arm in arms)
    if rates == 1:
        return f"No learning rate was tuned ({shown})."
    text = (
        f"Both arms were tuned with the same budget: the learning rate was the best of {rates} by "
        f"{result.claim.tuned_by} on the {setting.tuning_split} rows, with {seeds} ({shown})."
    )
    if edges := [arm.name for arm in arms if arm.at_edge]:
        text += f" The rate of {' and of '.join(edges)} is at the edge of those tried: a better one may lie beyond."
    return text


def _pairs(result: ClaimResult) -> str:
    if not result.pairs:
        return ""
    seeds = _seeds([pair.seed for pair in result.pairs])
    return (
        f"Then {counted(len(result.pairs), 'pair')} of runs, the two of a pair with one fresh seed ({seeds}), were "
        f"judged one after another by an anytime-valid t-test (Gaussian mixture, error {100 * ALPHA:g} % at all stops "
        "together), which takes the differences as independent and normal."
    )


def _statement(result: ClaimResult) -> str:
    found = result.sequence
    if found is None:
        return "No pair has been judged yet, and the claim is undecided."
    size = f"{abs(found.mean):.3g}"
    if SCORES[result.claim.metric].unit == "percent":
        size += " point" if size == "1" else " points"
    if not found.sd and found.pairs > 1:
        return (
            f"All pairs differed by the same {size}, about which the test says nothing, because "
            f"it takes chance from how the pairs vary: the claim is undecided ({result.stopped or 'so far'})."
        )
    direction = "in favor of" if found.mean >= 0 else "against"
    mean = f"The mean difference was {size} {direction} {result.better.name}"
    if found.lower is not None:
        mean += (
            f" ({100 * (1 - ALPHA):g} % confidence sequence of its advantage: {found.lower:.3g} to {found.upper:.3g})"
        )
    if result.verdict is not Verdict.undecided:
        return f"{mean}: the claim is {result.verdict.value} for these rows and this model."
    why = f" ({result.stopped})" if result.stopped else ""
    return f"{mean}: the claim is undecided{why}."


def _cost(result: ClaimResult) -> str:
    return f"All of it took {counted(result.runs, 'run')} and {_time(result.seconds)} of computing."


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _seeds(seeds: Sequence[int]) -> str:
    first, last = seeds[0], seeds[-1]
    if list(seeds) == list(range(first, last + 1)) and len(seeds) > 2:
        return f"{first} to {last}"
    return ", ".join(map(str, seeds))


def _arm(arm: Arm) -> dict[str, Any]:
    tried = [
        {"learning_rate": rate, "mean": mean if mean is not None and math.isfinite(mean) else None}
        for rate, mean in arm.tried.items()
    ]
    return {
        "name": arm.name,
        "learning_rate": arm.rate,
        "tried": tried,
        "at_edge": arm.at_edge,
        "trainable": arm.trainable,
        "budget": arm.budget,
        "tuning_runs": list(arm.fingerprints),
    }
