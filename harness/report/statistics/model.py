"""What the statistics read and return: plain, frozen values.

``RunScores`` (one score of one run) go in; ``Interval``, ``Comparison``, ``NoiseFloor`` and ``Finding`` come out.
Values are in the unit of the catalog: percent (0..100) for metrics, nats per token for losses.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95  # of every interval and noise floor
ALPHA = 0.05  # of every test, for a family of comparisons
POWER = 0.8  # with which a stated effect should be seen

# What an interval generalizes to: other seeds on the same rows, or other seeds and other rows of the same kind.
Over = Literal["seeds", "seeds and rows"]

# better, worse: the order holds beyond noise, after Holm's correction.
# equivalent: the interval lies within the stated minimum effect on both sides of zero.
# inside noise: the difference is smaller than the A/A noise floor. undecided: the interval includes too much.
# too few seeds: one of the two has a single seed, so nothing is known about the variance over seeds.
Verdict = Literal["better", "worse", "equivalent", "inside noise", "undecided", "too few seeds"]

FindingKind = Literal["best", "difference", "no difference", "power", "noise", "caution"]


@dataclass(frozen=True)
class RunScores:
    """One score of one finished run."""

    configuration: str  # key: runs that differ only in seed or numerics share it
    method: str
    seed: int
    metric: str  # name in the catalog of scores
    aggregate: float  # the score as the record has it
    group: str = ""  # key of model, data and protocol; only runs of one group are compared
    label: str = ""  # the configuration as sentences name it: "lora r=8"; empty: the method
    numerics: str = ""  # key of what changes rounding alone: device, dtype, attention, threads, versions
    fingerprint: str = ""
    # One value per scored row, in the order of the rows; None if the metric has none, or they were not kept. Their mean
    # is the aggregate.
    rows: "np.ndarray | None" = field(default=None, repr=False, compare=False)
    row_set: str = ""  # digest of the scored rows; equal digests are the same rows in the same order

    @property
    def name(self) -> str:
        """The configuration as sentences name it."""
        return self.label or self.method


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, with its confidence interval of ``LEVEL``."""

    mean: float
    low: float | None  # None with ``high``: a single seed has no interval
    high: float | None
    n: int  # seeds
    method: str  # how it was computed, for a caption: "t over seeds", "crossed seeds and rows, Satterthwaite"
    over: Over = "seeds"
    sd: float | None = None  # sample standard deviation over seeds (n - 1); of a mean only
    se: float | None = None
    df: float | None = None  # degrees of freedom of the t distribution

    @property
    def half_width(self) -> float | None:
        """``high - mean``; the interval is symmetric."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Components:
    """Variances of a difference of two configurations, each for one seed or one row; never negative.

    The difference of means over n seeds and R rows has the variance seed / n + row / R + residual / (n R).
    """

    seed: float  # methods react differently to a seed: initialization, order of the data
    row: float  # rows favor one configuration or the other, whatever the seed
    residual: float


@dataclass(frozen=True)
class Needed:
    """What a comparison needs to see ``effect`` with probability ``power`` at level ``alpha``."""

    effect: float
    alpha: float
    power: float
    power_now: float  # probability of seeing ``effect`` with the present seeds and rows
    visible: float  # smallest effect that is seen with ``power`` now
    seeds: int | None  # on the present rows; None: no number of seeds suffices
    rows: int | None  # with the present seeds; None: no number of rows suffices, or rows_known is false
    rows_known: bool  # false: the metric has no values per row, so nothing is known about other numbers of rows
    fewest_seeds: int | None = None  # with as many rows as wanted; None: rows_known is false


@dataclass(frozen=True)
class NoiseFloor:
    """How far apart the means of two times n seeds of one plan are: an A/A comparison.

    ``half_width`` holds 95 % of such differences. An order of two configurations whose difference is smaller is not
    claimed.
    """

    method: str
    group: str
    metric: str
    n: int  # seeds of each of the two means
    sd: float  # of the score, over seeds of one plan
    df: int
    half_width: float  # of the difference of two means of n seeds; the larger of the seeds' and the numerics'
    configurations: int  # whose spreads are pooled
    numerics_sd: float | None = None  # of the score of one plan and seed under changed numerics; None: no such runs
    numerics_df: int = 0
    source: Literal["seeds", "numerics"] = "seeds"  # which of the two gives the larger floor


@dataclass(frozen=True)
class Comparison:
    """One configuration against the reference, on one score."""

    reference: str  # configuration keys
    other: str
    difference: float  # mean of the other minus mean of the reference, over seeds, in the unit of the score
    interval: Interval  # of the difference, not corrected for the number of comparisons
    p: float | None  # two-sided; None if there are too few seeds
    p_holm: float | None  # corrected for the number of comparisons with this reference
    verdict: Verdict  # about the other: better or worse than the reference
    metric: str = ""
    group: str = ""
    reference_name: str = ""
    other_name: str = ""
    reference_seeds: tuple[int, ...] = ()
    other_seeds: tuple[int, ...] = ()
    paired: bool = False  # by seed: both have the same seeds
    rows: int | None = None  # scored rows whose values went in; None: seeds alone
    floor: float | None = None  # half width of the A/A noise floor of the two; None: unknown
    components: Components | None = None  # None: too few seeds
    needed: Needed | None = None  # for the minimum effect; None: none was stated, too few seeds, or an order was found


@dataclass(frozen=True)
class Finding:
    """One statement in words, with what it is about."""

    text: str
    kind: FindingKind
    keys: tuple[str, ...]  # configurations that it names
    metric: str = ""
    group: str = ""
