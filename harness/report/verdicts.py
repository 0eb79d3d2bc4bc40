"""What the statistics say about the configurations of a group: intervals, noise, comparisons and findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.report import alike
from harness.report.fields import Record
from harness.report.model import Configuration, Run
from harness.report.statistics.model import Comparison, Finding, NoiseFloor, RunScores


@dataclass(frozen=True)
class Judged:
    """A group's configurations with their intervals, and what can be said about them."""

    configurations: tuple[Configuration, ...]
    comparisons: tuple[Comparison, ...]
    floors: tuple[NoiseFloor, ...]
    findings: tuple[Finding, ...]
    reference: str  # key; "": none


def judge(
    group: str,
    configurations: Sequence[Configuration],
    runs: Sequence[Run],
    records: Mapping[str, Record],
    scores: Sequence[str],
    reference: str | None,
    minimum_effect: float | None,
) -> Judged:
    """Intervals of every score, noise floors, comparisons with the reference, and findings in words."""
    from harness.report.statistics.intervals import mean_interval
    from harness.report.statistics.noise import noise_floors

    by_key = {each.key: each for each in configurations}
    found = [each for name in scores for each in _run_scores(group, name, runs, by_key, records)]
    intervals: dict[str, dict[str, list[RunScores]]] = {key: {} for key in by_key}
    for each in found:
        intervals[each.configuration].setdefault(each.metric, []).append(each)
    floors = noise_floors(found, n=max((len(each.seeds) for each in configurations), default=1))
    finished = []
    for each in configurations:
        means = {name: mean_interval(runs) for name, runs in intervals[each.key].items()}
        known = {name: floors[group, each.method, name].half_width for name in means if (group, each.method, name) in floors}
        finished.append(replace(each, scores=means, floors=known))
    return Judged(tuple(finished), (), tuple(floors.values()), (), "")


def _run_scores(
    group: str,
    name: str,
    runs: Sequence[Run],
    configurations: Mapping[str, Configuration],
    records: Mapping[str, Record],
) -> list[RunScores]:
    found = []
    for run in runs:
        value = run.validation_loss if name == "validation_loss" else run.after.get(name)
        if value is None:
            continue
        own = configurations[run.configuration]
        found.append(
            RunScores(
                configuration=run.configuration,
                method=run.method,
                seed=run.seed,
                metric=name,
                aggregate=value,
                group=group,
                label=own.label,
                numerics=alike.numerics_key(records[run.fingerprint]),
                fingerprint=run.fingerprint,
            )
        )
    return found
