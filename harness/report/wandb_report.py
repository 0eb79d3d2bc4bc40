"""The report as W&B shows it: its runs there, plots that follow them, and the findings in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.choose import FoundRun
from harness.report.model import Group, Report
from harness.scoring.catalog import SCORES
from harness.trackers.start import STEP
from harness.trackers.wandb import NAME, fitting

SHOWN_SCORES = 3  # of a group besides the loss, with two plots each
HALF, WHOLE = 12, 24  # widths of a panel, of 24 columns

# Costs by their name in the summary of a tracked run; the first is the x-axis of the trade-offs.
COSTS = {
    "trainable_parameters": "parameters/trainable",
    "adapter_bytes": "adapter/bytes",
    "train_s": "times_s/train",
    "peak_train_bytes": "memory_bytes/train_peak",
}


@dataclass(frozen=True)
class TrackedRuns:
    """Which runs of a report are in W&B, and where."""

    ids: Mapping[str, str]  # by fingerprint
    project: str | None  # that most of them are in; None: none is in W&B
    entity: str | None  # None: that of the login
    elsewhere: tuple[str, ...]  # fingerprints of runs in other projects
    missing: tuple[str, ...]  # fingerprints of runs that were never sent


def tracked_runs(runs: Sequence[FoundRun]) -> TrackedRuns:
    """Where the runs are in W&B, as their records say it."""
    places: dict[str, tuple[str | None, str | None]] = {}
    ids: dict[str, str] = {}
    for run in runs:
        tracker = run.record.get("tracker") or {}
        if tracker.get("name") == "wandb" and tracker.get("id"):
            ids[run.fingerprint] = str(tracker["id"])
            places[run.fingerprint] = (tracker.get("project"), tracker.get("entity"))
    place = Counter(places.values()).most_common(1)[0][0] if places else (None, None)
    return TrackedRuns(
        {name: ids[name] for name in ids if places[name] == place},
        *place,
        elsewhere=tuple(name for name in ids if places[name] != place),
        missing=tuple(run.fingerprint for run in runs if run.fingerprint not in ids),
    )


def build_wandb_report(report: Report, tracked: TrackedRuns, project: str, entity: str | None) -> Any:
    """A ``wandb_workspaces`` report, not saved yet; makes no request.

    Args:
        entity: None: the runs are looked up in the project that the report is saved in.
    """
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.P(f"{report.chosen}. {_counts(report)}"), wr.TableOfContents()]
    if report.findings:
        findings = report.headlines or report.findings
        blocks += [wr.H1("Findings"), wr.UnorderedList([finding.text for finding in findings])]
    for group in report.groups:
        blocks += _blocks(group, report, tracked, project, entity, wr)
    blocks += [wr.H1("How to make this report again"), wr.CodeBlock(report.command, language=None)]
    if left := [*tracked.missing, *tracked.elsewhere]:
        blocks.append(wr.P(f"{len(left)} of its runs are not in this project: {', '.join(left)}"))
    title = fitting(report.title, NAME)
    return wr.Report(project=project, entity=entity or "", title=title, description=report.chosen, blocks=blocks)


def specification(report: Any) -> str:
    """The report as JSON, as ``save`` would send it."""
    return str(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def _counts(report: Report) -> str:
    runs = report.runs
    methods = dict.fromkeys(run.method for run in runs)
    return f"{len(runs)} runs of {len(methods)} methods: {', '.join(methods)}."


def _blocks(group: Group, report: Report, tracked: TrackedRuns, project: str, entity: str | None, wr: Any) -> list[Any]:
    """One group of comparable runs: what they share, their findings, and a grid of panels over their runs."""
    ids = [tracked.ids[run.fingerprint] for run in group.runs if run.fingerprint in tracked.ids]
    if not ids:
        return [wr.H1(group.title), wr.P("None of these runs is in this project.")]
    summaries = [_summary(name) for name in group.scores]
    runs = wr.Runset(
        entity=entity or "",
        project=project,
        name=fitting(group.title, NAME),
        filters=f"ID in {ids!r}",
        order=[wr.OrderBy(wr.Config("method"), ascending=True)],
        pinned_columns=["config:configuration.value", "config:seed.value", *(f"summary:{each}" for each in summaries)],
    )
    text: list[Any] = [wr.H1(group.title)]
    if group.facts:
        text.append(wr.UnorderedList([f"{fact.name}: {fact.value}" for fact in group.facts]))
    shown = {finding.text for finding in report.headlines}
    if more := [finding.text for finding in group.findings if finding.text not in shown]:
        text += [wr.H2("More findings"), wr.UnorderedList(more)]
    return [*text, wr.PanelGrid(runsets=[runs], panels=_panels(group, wr))]


def _panels(group: Group, wr: Any) -> list[Any]:
    """Trade-offs, means with error bars, settings against scores, curves, and sample answers."""
    first = group.scores[:SHOWN_SCORES]
    scores = [*first, *(name for name in group.scores if name == "loss" and name not in first)]
    panels: list[Any] = []
    for name in scores:
        best = SCORES[name].direction if name in SCORES else None
        panels.append(
            wr.ScatterPlot(
                title=f"{_label(name)} against trainable parameters, with the best so far",
                x=wr.SummaryMetric(COSTS["trainable_parameters"]),
                y=wr.SummaryMetric(_summary(name)),
                log_x=True,
                running_ymax=best == "maximize",
                running_ymin=best == "minimize",
            )
        )
        panels.append(
            wr.BarPlot(
                title=f"{_label(name)}: mean over seeds ± standard deviation",
                metrics=[_summary(name)],
                groupby=wr.Config(_by(group)),
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
            )
        )
    panels.append(_parallel_coordinates(group, scores, wr))
    for name in ("train/loss", "validation/loss"):
        panels.append(
            wr.LinePlot(
                title=f"{name}: mean over seeds ± standard deviation",
                x=STEP,  # tokens and epochs are logged too, but records lack them: runs that are sent later have steps
                y=[name],
                log_y=True,
                groupby=wr.Config(_by(group)),
                groupby_aggfunc="mean",
                groupby_rangefunc="stddev",
            )
        )
    panels.append(wr.WeavePanelSummaryTable(table_name="predictions"))
    return _laid_out(panels, wr)


def _by(group: Group) -> str:
    """What bars and curves are of: methods, or, if a method has several settings, its configurations."""
    methods = Counter(configuration.method for configuration in group.configurations)
    return "method" if max(methods.values(), default=0) == 1 else "configuration"


def _parallel_coordinates(group: Group, scores: Sequence[str], wr: Any) -> Any:
    """Each run as a line from its method and settings to its costs and scores; better is up."""
    settings = dict.fromkeys(name for each in group.configurations for name in each.values if name != "learning_rate")
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config("method")), *(column(wr.Config(_config_key(name)), name) for name in settings)]
    columns.append(column(wr.Config("learning_rate"), "learning rate", log=True))
    columns += [column(wr.SummaryMetric(COSTS[name]), name, log=True) for name in group.costs if name in COSTS]
    for name in scores:
        lower_is_better = name in SCORES and SCORES[name].direction == "minimize"
        columns.append(column(wr.SummaryMetric(_summary(name)), _label(name), inverted=lower_is_better))
    return wr.ParallelCoordinatesPlot(title="Settings, costs and scores", columns=columns)


def _config_key(name: str) -> str:
    """A setting in the config of a tracked run, which is the plan: the method's own settings are below ``settings``."""
    group, _, rest = name.partition(".")
    if group in ("model", "data", "trainer", "scoring") and rest:
        return name
    return name if name in ("seed", "learning_rate") else f"settings.{name}"


def _summary(score: str) -> str:
    """A score in the summary of a tracked run."""
    return "validation/loss" if score == "validation_loss" else f"after/{score}"


def _label(name: str) -> str:
    return SCORES[name].heading if name in SCORES else name


def _laid_out(panels: Sequence[Any], wr: Any) -> list[Any]:
    """Two panels a row; those that need it have a row of their own."""
    x, y, height = 0, 0, 8
    for panel in panels:
        wide = isinstance(panel, wr.ParallelCoordinatesPlot | wr.WeavePanelSummaryTable)
        width = WHOLE if wide else HALF
        if x + width > WHOLE:
            x, y = 0, y + height
        panel.layout = wr.Layout(x=x, y=y, w=width, h=height)
        x += width
    return list(panels)
