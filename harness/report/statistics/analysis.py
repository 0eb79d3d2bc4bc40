"""All statistics of one score and one group, for a page to show.

    read = read_scores(runs)
    for analysis in analyses(read.scores, reference=key, minimum_effect=stated):
        analysis.means, analysis.comparisons, analysis.floors, analysis.findings

Imports numpy and scipy: import this inside functions.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import ConfigFault
from harness.report.statistics import words
from harness.report.statistics.comparisons import compare_with
from harness.report.statistics.intervals import mean_interval
from harness.report.statistics.model import Comparison, Finding, Interval, NoiseFloor, RunScores
from harness.report.statistics.noise import noise_floors, one_run_a_seed
from harness.scoring.catalog import SCORES


@dataclass(frozen=True)
class Analysis:
    """What the runs of one group say about one score."""

    metric: str
    group: str
    reference: str | None  # key of the configuration that others are compared with; None: there is only one
    chosen: bool  # the reference is the best configuration, because none was named, or it has no run in this group
    means: dict[str, Interval]  # over seeds, by configuration, the best first
    comparisons: list[Comparison]
    floors: dict[str, NoiseFloor]  # by method, of differences of means of ``n`` seeds
    findings: list[Finding]


def analyses(
    runs: Iterable[RunScores], reference: str | None = None, minimum_effect: float | None = None
) -> list[Analysis]:
    """One analysis for each group and score, in the order of groups and of the catalog.

    Args:
        reference: key of a configuration (``resolve_reference``); None, or in groups without a run of it: the one with
            the best mean. Then ``worse`` says that a configuration is not the best (``compare_with``).
        minimum_effect: the smallest difference that matters, in the score's unit; None: 1 point or 0.01 of a loss.
    """
    parts: dict[tuple[str, str], list[RunScores]] = defaultdict(list)
    for run in runs:
        parts[run.group, run.metric].append(run)
    places = {name: place for place, name in enumerate(SCORES)}
    ordered = sorted(parts, key=lambda part: (part[0], places.get(part[1], len(places)), part[1]))
    return [analysis_of(parts[part], reference, minimum_effect) for part in ordered]


def analysis_of(
    runs: Sequence[RunScores], reference: str | None = None, minimum_effect: float | None = None
) -> Analysis:
    """The analysis of one group's runs on one score; see ``analyses``."""
    metric, group = runs[0].metric, runs[0].group
    lower = metric in SCORES and SCORES[metric].lower_is_better
    smallest = words.minimum_effect_of(metric, minimum_effect)
    by_configuration: dict[str, list[RunScores]] = defaultdict(list)
    for run in one_run_a_seed(runs):
        by_configuration[run.configuration].append(run)
    means = {key: mean_interval(members) for key, members in by_configuration.items()}
    names = {key: members[0].name for key, members in by_configuration.items()}
    ranked = sorted(means, key=lambda key: (means[key].mean if lower else -means[key].mean, names[key], key))
    best, named = ranked[0], reference in means
    most_seeds = max(interval.n for interval in means.values())
    floors = {floor.method: floor for floor in noise_floors(runs, n=most_seeds).values()}
    comparisons: list[Comparison] = []
    found: list[Finding] = []
    if len(means) > 1:
        effect = None if named else smallest  # only its order counts, if others are compared with a named reference
        with_best = compare_with(best, runs, lower_is_better=lower, minimum_effect=effect, chosen_by_score=True)
        found.append(words.best_finding(with_best, names[best], means[best], lower))
        comparisons = with_best
        if named and reference is not None:
            comparisons = compare_with(reference, runs, lower_is_better=lower, minimum_effect=smallest)
            found += words.findings_of(comparisons, smallest)
        else:
            found += _runner_up(with_best, ranked, smallest)
    extra = [words.noise_finding(floors.values()), words.caution_on_rows(comparisons, runs)]
    return Analysis(
        metric=metric,
        group=group,
        reference=(reference if named else best) if comparisons else None,
        chosen=not named,
        means={key: means[key] for key in ranked},
        comparisons=comparisons,
        floors=floors,
        findings=found + [each for each in extra if each is not None],
    )


def _runner_up(with_best: Sequence[Comparison], ranked: Sequence[str], smallest: float | None) -> list[Finding]:
    """The best two in words, if they have seeds enough but cannot be told apart."""
    second = next(each for each in with_best if each.other == ranked[1])
    silent = ("worse", "better", "too few seeds")
    return [] if second.verdict in silent else [words.finding_of(second, smallest)]


def resolve_reference(runs: Iterable[RunScores], text: str) -> str:
    """The configuration that ``report.reference`` names: by fingerprint (or its beginning), label or method.

    Raises:
        ConfigFault: it names none, or several.
    """
    runs = list(runs)
    names = {run.configuration: run.name for run in runs}
    by_label = {run.configuration for run in runs if text in (run.label, run.configuration)}
    by_method = {run.configuration for run in runs if run.method == text}
    by_run = {run.configuration for run in runs if len(text) >= 4 and run.fingerprint.startswith(text)}
    found = by_label or by_run or by_method
    if len(found) == 1:
        return found.pop()
    choices = ", ".join(sorted({names[key] for key in found or names})[:12])
    if not found:
        raise ConfigFault(f"report.reference={text} names no run of this report; name one of: {choices}")
    raise ConfigFault(f"report.reference={text} names {len(found)} configurations; name one of them: {choices}")
