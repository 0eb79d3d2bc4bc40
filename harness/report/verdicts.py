"""What the statistics say about the configurations of a group: intervals, noise, comparisons and findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.report.choose import FoundRun
from harness.report.model import Configuration
from harness.report.statistics.model import Comparison, Finding, NoiseFloor, RunScores


@dataclass(frozen=True)
class GroupScores:
    """The scores of a group's finished runs, as the statistics read them."""

    scores: tuple[RunScores, ...]
    counted: frozenset[str]  # fingerprints: one run of each configuration and seed; others tell about rounding alone
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """A group's configurations with their intervals, and what can be said about them."""

    configurations: tuple[Configuration, ...]
    comparisons: tuple[Comparison, ...]
    floors: tuple[NoiseFloor, ...]
    findings: tuple[Finding, ...]


def read_group(group: str, runs: Sequence[FoundRun], keys: Mapping[str, str], labels: Mapping[str, str]) -> GroupScores:
    """Scores of the runs with their values per row.

    Args:
        keys: of configurations, by fingerprint.
        labels: of configurations, by key.
    """
    from harness.report.statistics.noise import one_run_a_seed
    from harness.report.statistics.reader import FinishedRun, read_scores

    finished = [
        FinishedRun(run.record, run.folder, keys[run.fingerprint], group, labels[keys[run.fingerprint]])
        for run in runs
        if run.record["status"] == "finished"
    ]
    read = read_scores(finished)
    scores = tuple(read.scores)
    counted = frozenset(each.fingerprint for each in one_run_a_seed(scores))
    return GroupScores(scores, counted, tuple(read.notes))


def judge(
    scores: Sequence[RunScores],
    configurations: Sequence[Configuration],
    reference: str | None,
    minimum_effect: float | None,
) -> Judged:
    """Intervals of every score, noise floors, comparisons and findings in words.

    Args:
        reference: key of the configuration that others are compared with; None: the best one of each score.
    """
    from harness.report.statistics.analysis import analyses

    found = analyses(scores, reference, minimum_effect)
    finished = []
    for each in configurations:
        means = {one.metric: one.means[each.key] for one in found if each.key in one.means}
        floors = {one.metric: one.floors[each.method].half_width for one in found if each.method in one.floors}
        # A mean over fewer seeds than its neighbors' would mislead.
        complete = {name: mean for name, mean in means.items() if mean.n == len(each.seeds)}
        finished.append(
            replace(each, scores=complete, floors={name: floors[name] for name in complete if name in floors})
        )
    return Judged(
        configurations=tuple(finished),
        comparisons=tuple(comparison for one in found for comparison in one.comparisons),
        floors=tuple(floor for one in found for floor in one.floors.values()),
        findings=tuple(finding for one in found for finding in one.findings),
    )
