"""What comparisons and noise floors say, in words.

A sentence names the configurations, the rows and seeds that it rests on, the difference with its interval and corrected
p value, and, if no order is claimed, what it would take to see the minimum effect.
"""

from collections.abc import Iterable, Mapping, Sequence

from harness.report.statistics.model import (
    Comparison,
    Finding,
    Interval,
    Needed,
    NoiseFloor,
    RunScores,
    Verdict,
)
from harness.report.statistics.power import MOST_SEEDS
from harness.scoring.catalog import SCORES

MANY = 6  # comparisons with one verdict: from here on they share a sentence

# The smallest difference that matters if report.minimum_effect does not say, by unit of the score.
MINIMUM_EFFECTS: Mapping[str, float] = {"percent": 1.0, "nats per token": 0.01, "ratio": 0.01}


def minimum_effect_of(metric: str, stated: float | None) -> float | None:
    """The smallest difference that matters: as stated, else 1 point or 0.01 of a loss; None: an unknown score."""
    if stated is not None:
        return stated
    return MINIMUM_EFFECTS[SCORES[metric].unit] if metric in SCORES else None


def findings_of(comparisons: Sequence[Comparison], minimum_effect: float | None) -> list[Finding]:
    """One sentence per comparison; those of one verdict share a sentence if there are ``MANY``."""
    found = []
    for verdict in ("worse", "better", "equivalent", "inside noise", "undecided", "too few seeds"):
        alike = [each for each in comparisons if each.verdict == verdict]
        if len(alike) < MANY:
            found += [finding_of(each, minimum_effect) for each in alike]
        else:
            found.append(_together(alike, verdict))
    return found


def finding_of(each: Comparison, minimum_effect: float | None) -> Finding:
    """One comparison in words."""
    one, other = _names(each.reference_name, each.other_name)
    both, ground, amount = f"{one} and {other}", _ground(each), _amount(each.difference, each.metric)
    score, tested = _score(each.metric), _tested(each)
    if each.verdict in ("better", "worse"):
        text = f"{each.other_name} is {each.verdict} than {each.reference_name} on {ground}: {score} "
        text += f"{'higher' if each.difference > 0 else 'lower'} by {amount} ({tested})."
        if minimum_effect is not None and abs(each.difference) < minimum_effect:
            text += f" That is less than the {_effect(minimum_effect, each.metric)} that matter."
        return _finding(each, text, "difference")
    if each.verdict == "too few seeds":
        text = f"{both}: no order is claimed, because one seed says nothing about other seeds ({score} of {other} is "
        text += f"{amount} {'higher' if each.difference > 0 else 'lower'}); run seed=0,1,2 or more of each."
        return _finding(each, text, "no difference")
    if each.verdict == "equivalent" and minimum_effect is not None:
        text = f"{both} differ by less than {_effect(minimum_effect, each.metric)} of {score} on {ground} ({tested})."
        return _finding(each, text, "no difference")
    text = f"{both} cannot be told apart on {ground}: "
    if each.verdict == "inside noise" and each.floor is not None:
        text += (
            f"the difference in {score}, {amount}, lies inside the A/A noise of ±{_amount(each.floor, each.metric)} "
        )
        text += f"({tested})."
    elif each.difference == 0:
        text += f"{score} is the same ({tested})."
    else:
        side = "higher" if each.difference > 0 else "lower"
        text += f"{score} of {other} is {side} by {amount} ({tested})."
    if each.p is None:
        text += " All seeds gave the same difference, so nothing is known about its variance."
    if each.needed is not None:
        text += f" {needed_in_words(each.needed, each)}"
    return _finding(each, text, "no difference")


def needed_in_words(plan: Needed, each: Comparison) -> str:
    """The rows and seeds that show the minimum effect."""
    seeds = min(len(each.reference_seeds), len(each.other_seeds))
    effect, chance = _effect(plan.effect, each.metric), f"{100 * plan.power:.0f} %"
    rows = f"these {each.rows} rows" if each.rows is not None else "these rows"
    if plan.power_now >= plan.power:
        return f"A difference of {effect} would have been seen with a probability of {100 * plan.power_now:.0f} %."
    parts = []
    if plan.seeds is not None:
        parts.append(f"{plan.seeds:,} seeds of each on {rows}")
    if plan.rows is not None:
        parts.append(f"{plan.rows:,} rows with {_seeds(seeds)} of each")
    text = f"To see a difference of {effect} with a probability of {chance} takes {' or '.join(parts)}" if parts else ""
    missing = []
    if plan.rows_known and plan.rows is None:
        missing.append(f"no number of rows suffices with {_seeds(seeds)}")
    if plan.seeds is None:
        most = f"no number of seeds (up to {MOST_SEEDS:,}) suffices on {rows}"
        if plan.fewest_seeds is not None:
            most += f"; with more rows at least {plan.fewest_seeds:,} seeds of each are needed"
        missing.append(most)
    if not missing:
        return f"{text}."
    reasons = ", and ".join(missing)
    return f"{text}; {reasons}." if parts else f"To see a difference of {effect}: {reasons}."


def best_finding(comparisons: Sequence[Comparison], name: str, mean: Interval, lower_is_better: bool) -> Finding:
    """The configuration with the best mean, and those that may be the best instead.

    Args:
        comparisons: of all others with it, corrected for the choice (``compare_with(chosen_by_score=True)``).
    """
    metric, first = comparisons[0].metric, comparisons[0]
    able = [each for each in comparisons if each.verdict not in ("worse", "too few seeds")]
    unknown = [each.other_name for each in comparisons if each.verdict == "too few seeds"]
    text = f"{'Lowest' if lower_is_better else 'Highest'} {_score(metric)}: {name}, {_number(mean.mean, metric)}"
    if mean.low is not None and mean.high is not None:
        text += f" (95 % interval {_number(mean.low, metric)} to {_number(mean.high, metric)} over {_seeds(mean.n)}). "
    else:
        text += " (one seed). "
    rest = len(comparisons) - len(able) - len(unknown)
    if len(unknown) == len(comparisons):
        text += "No order is claimed, because one seed says nothing about other seeds; run seed=0,1,2 or more of each."
        unknown = []
    elif not able:
        text += "It is better than the other one." if rest == 1 else f"It is better than each of the other {rest}."
    elif not rest:
        text += (
            "No other can be told apart from it." if len(able) > 1 else f"{able[0].other_name} cannot be told apart."
        )
    else:
        text += f"With 95 % confidence the best is {_list([name, *(each.other_name for each in able)], last='or')}; "
        text += f"{'one other is' if rest == 1 else f'{rest} others are'} not."
    if unknown:
        text += f" {_list(unknown)} {'has' if len(unknown) == 1 else 'have'} one seed, which is too few to judge."
    return Finding(text, "best", (first.reference, *(each.other for each in able)), metric, first.group)


def noise_finding(floors: Iterable[NoiseFloor]) -> Finding | None:
    """The A/A noise of the methods of one group and score, the largest first; None without any."""
    ordered = sorted(floors, key=lambda floor: -floor.half_width)
    if not ordered:
        return None
    metric, first = ordered[0].metric, ordered[0]
    parts = [f"{floor.method} ±{_number(floor.half_width, metric)}{_from_numerics(floor)}" for floor in ordered]
    unit = _unit(metric)
    text = f"A/A noise of {_score(metric)}: 95 % of the differences between two means of {_seeds(first.n)} of one plan "
    text += f"lie within {_list(parts, 8)}{f' {unit}' if unit else ''}. No order within it is claimed."
    return Finding(text, "noise", (), metric, first.group)


def caution_on_rows(comparisons: Sequence[Comparison], runs: Sequence[RunScores]) -> Finding | None:
    """Which comparisons leave the rows out although the score has values per row; None if none does."""
    known = {run.configuration for run in runs if run.rows is not None}
    tested = [each for each in comparisons if each.verdict != "too few seeds"]
    without = [each for each in tested if each.rows is None and {each.reference, each.other} & known]
    if not without:
        return None
    text = f"{_score(without[0].metric)}: values per row are missing, or of other rows, in runs of "
    text += f"{_list([each.other_name for each in without])} or {without[0].reference_name}; these comparisons count "
    text += "seeds alone and say nothing about other rows."
    return Finding(text, "caution", tuple(each.other for each in without), without[0].metric, without[0].group)


def _together(alike: Sequence[Comparison], verdict: Verdict) -> Finding:
    """Comparisons of one verdict in one sentence."""
    first, metric = alike[0], alike[0].metric
    sizes = sorted(abs(each.difference) for each in alike)
    names = _list([each.other_name for each in sorted(alike, key=lambda each: -abs(each.difference))])
    spread = f"{_number(sizes[0], metric)} to {_amount(sizes[-1], metric)} of {_score(metric)}"
    keys = (first.reference, *(each.other for each in alike))
    if verdict in ("better", "worse"):
        largest = max(each.p_holm for each in alike if each.p_holm is not None)
        text = (
            f"{len(alike)} configurations are {verdict} than {first.reference_name}, by {spread} on {_ground(first)} "
        )
        text += f"(each corrected {_p(largest).replace('=', '<=')}): {names}."
        return Finding(text, "difference", keys, metric, first.group)
    why = {"too few seeds": "for lack of seeds ", "inside noise": "", "undecided": "", "equivalent": ""}[verdict]
    text = f"{len(alike)} configurations cannot be told apart from {first.reference_name} {why}on {_ground(first)} "
    text += f"(differences of {spread}): {names}."
    plans = [each.needed.seeds for each in alike if each.needed is not None and each.needed.seeds is not None]
    effects = [each.needed.effect for each in alike if each.needed is not None]
    if plans and effects and len(plans) == len(alike):
        text += (
            f" To see a difference of {_effect(effects[0], metric)} takes {min(plans):,} to {max(plans):,} seeds of "
        )
        text += "each on these rows."
    return Finding(text, "no difference", keys, metric, first.group)


def _finding(each: Comparison, text: str, kind: str) -> Finding:
    return Finding(text, kind, (each.reference, each.other), each.metric, each.group)  # type: ignore[arg-type]


def _tested(each: Comparison) -> str:
    """``95 % interval -2.1 to +5.7, corrected p = 0.4``."""
    if each.interval.low is None or each.interval.high is None:
        return "no interval"
    low, high = (_number(value, each.metric, sign=True) for value in (each.interval.low, each.interval.high))
    return f"95 % interval {low} to {high}" + (f", corrected {_p(each.p_holm)}" if each.p_holm is not None else "")


def _ground(each: Comparison) -> str:
    """``216 rows and 3 seeds``."""
    one, other = len(each.reference_seeds), len(each.other_seeds)
    seeds = _seeds(one) if one == other else f"{one} and {other} seeds"
    return seeds if each.rows is None else f"{each.rows:,} rows and {seeds}"


def _names(one: str, other: str) -> tuple[str, str]:
    """``lora r=8`` and ``r=16``: the second without the word that both begin with."""
    first, second = one.split(" "), other.split(" ")
    return one, " ".join(second[1:]) if len(second) > 1 and len(first) > 1 and first[0] == second[0] else other


def _p(value: float | None) -> str:
    if value is None:
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"


def _score(metric: str) -> str:
    return SCORES[metric].label or metric if metric in SCORES else metric


def _unit(metric: str) -> str:
    """What a difference is counted in."""
    if metric not in SCORES:
        return ""
    return {"percent": "points", "nats per token": "nats per token", "ratio": ""}[SCORES[metric].unit]


def _number(value: float, metric: str, sign: bool = False) -> str:
    """A value or difference with as many digits as its size needs: two significant ones if it is small."""
    usual = SCORES[metric].decimals if metric in SCORES else 1
    text = f"{value:.{usual}f}"
    if value and abs(value) < 10 ** -(usual - 1) / 2:
        text = f"{value:.2g}"
    return f"+{text}" if sign and value > 0 else text


def _amount(difference: float, metric: str) -> str:
    """The size of a difference with its unit: ``1.8 points``."""
    return f"{_number(abs(difference), metric)} {_unit(metric)}".rstrip()


def _effect(size: float, metric: str) -> str:
    """A stated effect with its unit, without needless digits: ``1 point``, ``0.01 nats per token``."""
    unit = "point" if _unit(metric) == "points" and size == 1 else _unit(metric)
    return f"{size:g} {unit}".rstrip()


def _list(names: Sequence[str], most: int = 12, last: str = "and") -> str:
    """``a, b and c``; beyond ``most``, the rest as a count."""
    shown, rest = list(names[:most]), len(names) - most
    if rest > 0:
        return f"{', '.join(shown)} {last} {'one of ' if last == 'or' else ''}{rest} more"
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}" if len(shown) > 1 else shown[0]


def _from_numerics(floor: NoiseFloor) -> str:
    return " (under changed numerics)" if floor.source == "numerics" else ""
