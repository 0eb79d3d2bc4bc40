"""A paired comparison that may be looked at after every pair: an anytime-valid t-test and its confidence sequence.

Each pair is two runs that share a seed; what is judged is the difference of their scores. An ordinary t interval holds
for one look at a number of pairs that was fixed beforehand. Who looks after each pair and stops when zero is outside
finds a difference between equal methods far more often than 5 % of the time. A confidence sequence holds at all looks
together: with probability 0.95 it contains the true mean after every pair, however many there are and whenever one
stops.

**Method.** The e-process of the t-test under a Gaussian mixture over the standardized effect, ``effect ~ N(0, 1)``. For
n differences with mean m and sample standard deviation s, and ``t = sqrt(n) (m - mean0) / s``::

    e(mean0) = (1 + n)^(-1/2) [(1 + t^2 / ((n - 1)(1 + n))) / (1 + t^2 / (n - 1))]^(-n/2)

It is a Bayes factor, a ratio of densities of what does not change when all differences are multiplied by one number,
and so a martingale that starts at 1 when ``mean0`` is the true mean. By Ville's inequality it reaches ``1 / 0.05`` with
probability 0.05 at most, at any time. The confidence sequence is the set of the means whose e is below that.

Sources: Lai, 'On confidence sequences', Annals of Statistics 4 (1976); Perez-Ortiz, Lardy, de Heide, Grunwald,
'E-statistics, group invariance and anytime-valid testing', Annals of Statistics 52 (2024), arXiv:2208.07610; Wang and
Ramdas, 'Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance' (2023),
arXiv:2310.03722, section 4 (the scale-invariant test with a Gaussian mixture; their c^2 is 1 here).

No library is used: confseq has bounded and asymptotic sequences but no t-test, and savvi reaches this test only as a
regression, with a convex optimizer among its requirements.

**Assumptions.** The differences are independent, and normal with one mean and one standard deviation, both unknown.
Seeds make them independent; that they are normal cannot be checked with a dozen pairs. Heavy tails make the test
cautious; strong skewness can raise its error (docs/claims.md has figures). When to stop may depend on the verdicts, on
a number of pairs or on a clock, but not on other results of the same runs. The statement is about other seeds on these
rows: model, data, split and protocol are taken as they are.

**Fewest pairs.** With 0.05 no verdict is possible before the fifth pair (``FEWEST_PAIRS``), however clear it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from harness.config.schema import Relation

ALPHA = 0.05  # probability of any false verdict in a whole sequence, however it ends
MIXTURE = 1.0  # variance of the standardized effect under the mixture; 1 has most power near twelve pairs
LONGEST = 10_000  # pairs; a forecast of more is none


class Verdict(Enum):
    """What is known about a claim."""

    supported = "supported"
    refuted = "refuted"
    undecided = "undecided"


@dataclass(frozen=True)
class ConfidenceSequence:
    """The confidence sequence after some pairs.

    Attributes:
        lower: None, as ``upper`` is, while the pairs are too few or have not differed: every mean is possible.
    """

    pairs: int
    mean: float
    sd: float | None  # of the differences; None for one pair
    lower: float | None
    upper: float | None


def e_value(differences: Sequence[float], mean0: float = 0.0) -> float:
    """Evidence against ``mean0`` as the true mean: 20 or more refutes it at 0.05; 1 while nothing can be told.

    Differences that are all the same say nothing, because their standard deviation is unknown.
    """
    n = len(differences)
    mean, sd = _moments(differences)
    if n < 2 or not sd:
        return 1.0
    ratio = n * (mean - mean0) ** 2 / sd**2 / (n - 1)  # t squared over its degrees of freedom
    wide = 1 + n * MIXTURE
    log_e = -0.5 * math.log(wide) + n / 2 * (math.log1p(ratio) - math.log1p(ratio / wide))
    return math.exp(min(log_e, 700.0))  # beyond, a float overflows


def confidence_sequence(differences: Sequence[float]) -> ConfidenceSequence:
    """The means that ``e_value`` does not refute at ``ALPHA``; valid after every pair at once."""
    if not differences:
        raise ValueError("no differences")
    n = len(differences)
    mean, sd = _moments(differences)
    half = half_width(n, sd) if sd else None
    if half is None:
        return ConfidenceSequence(n, mean, sd, None, None)
    return ConfidenceSequence(n, mean, sd, mean - half, mean + half)


def half_width(pairs: int, sd: float) -> float | None:
    """Half the width of the confidence sequence after so many pairs; None if they are too few for a finite one."""
    if pairs < 2:
        return None
    wide = 1 + pairs * MIXTURE
    # e(mean0) < 1 / ALPHA, solved for t squared over its degrees of freedom.
    bound = math.exp(2 / pairs * (0.5 * math.log(wide) - math.log(ALPHA)))
    if bound >= wide:
        return None
    return sd * math.sqrt((pairs - 1) / pairs * (bound - 1) / (1 - bound / wide))


FEWEST_PAIRS = next(n for n in range(2, 100) if half_width(n, 1.0) is not None)


def verdict_of(found: ConfidenceSequence, relation: Relation, margin: float) -> Verdict:
    """What the confidence sequence says about a claim. Wrong with probability ``ALPHA`` at most, at any stop.

    Args:
        margin: in the unit of the score; of ``equal``, above 0.
    """
    if found.lower is None or found.upper is None:
        return Verdict.undecided
    if relation is Relation.better:
        if found.lower > margin:
            return Verdict.supported
        return Verdict.refuted if found.upper < margin else Verdict.undecided
    if -margin < found.lower and found.upper < margin:
        return Verdict.supported
    return Verdict.refuted if found.lower > margin or found.upper < -margin else Verdict.undecided


def pairs_to_go(found: ConfidenceSequence, relation: Relation, margin: float, at_most: int = LONGEST) -> int | None:
    """How many more pairs a verdict takes if mean and standard deviation stay as they are; None if more than at most.

    An estimate of one value: near a margin, or after few pairs, it changes much from pair to pair.
    """
    if not found.sd:
        return None
    room = {
        Relation.better: abs(found.mean - margin),
        Relation.equal: abs(abs(found.mean) - margin),
    }[relation]
    if room == 0:
        return None
    low, high = max(found.pairs, FEWEST_PAIRS), found.pairs + at_most
    if not _decides(high, found.sd, room):
        return None
    while low < high:  # the width falls with the number of pairs
        middle = (low + high) // 2
        low, high = (low, middle) if _decides(middle, found.sd, room) else (middle + 1, high)
    return low - found.pairs


def _decides(pairs: int, sd: float, room: float) -> bool:
    half = half_width(pairs, sd)
    return half is not None and half < room


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation if there are two values or more."""
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    if n < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
