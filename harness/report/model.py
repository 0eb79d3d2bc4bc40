"""What a report says, before it becomes a page, a table or a file: plain, frozen values.

``harness.report.build`` makes a ``Report`` from records; a module of ``harness.report.formats`` writes each form.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.report.shape.judge import Judged, Verdict
from harness.report.statistics.model import Comparison, Finding, Interval, NoiseFloor


@dataclass(frozen=True)
class Fact:
    """Something that all runs of a report or of a group share."""

    name: str  # as on the command line, or as in the record
    value: str


@dataclass(frozen=True)
class Run:
    """One run, finished or not."""

    fingerprint: str
    configuration: str  # key
    method: str
    setting: str
    seed: int
    state: str  # finished, failed, interrupted, pruned, running, not run
    folder: str  # as people type it
    cells: tuple[str, ...]  # of the sweep, which this run answers: overrides as typed
    before: Mapping[str, float]
    after: Mapping[str, float]
    costs: Mapping[str, float | None]
    validation_loss: float | None
    started: str
    finished: str | None
    code: str
    device: str
    dtype: str
    error: str = ""  # first line
    hint: str = ""
    notes: tuple[str, ...] = ()
    # Everything else that two runs may differ in, by name: settings, versions, audit, rows.
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    training: "Curve | None" = None
    validation: "Curve | None" = None
    predictions: Path | None = None  # file with the answers


@dataclass(frozen=True)
class Curve:
    """A loss over optimizer steps; long ones are thinned out."""

    steps: tuple[float, ...]
    losses: tuple[float | None, ...]


@dataclass(frozen=True)
class Configuration:
    """A row of the table: runs that differ in nothing but their seed."""

    key: str
    number: int  # its row in the table of its group, from 1
    method: str
    setting: str  # what tells it from others of its method: "r=8"
    learning_rate: float | None
    seeds: tuple[int, ...]
    runs: tuple[str, ...]  # fingerprints
    cells: tuple[str, ...]  # of the sweep, which its runs answer
    scores: Mapping[str, Interval]  # after training
    changes: Mapping[str, float]  # mean after minus mean before
    costs: Mapping[str, float | None]  # means over seeds
    values: Mapping[str, Any]  # settings that differ within the group, by name
    rate_given: bool = False  # the command gave the learning rate; else it follows from the method's rule
    marks: tuple[str, ...] = ()  # how its runs were made differently from most of the group
    selected: str = ""  # "best of 4 by loss on validation"
    floors: Mapping[str, float] = field(default_factory=dict)  # half width of the A/A noise floor of each score

    @property
    def label(self) -> str:
        """Method and setting."""
        return f"{self.method} {self.setting}".strip()


@dataclass(frozen=True)
class Line:
    """Configurations along one axis, whose other settings are equal."""

    method: str
    label: str  # the other settings that tell it from lines of the same method
    points: tuple[tuple[float, str], ...]  # value on the axis, key of the configuration; rising


@dataclass(frozen=True)
class Axis:
    """A setting that was varied, with a line for each method and for each combination of other settings."""

    name: str
    logarithmic: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Published:
    """A result of others, beside the runs of one's own."""

    fingerprint: str
    source: str  # "PEFT method_comparison"
    experiment: str  # its name there
    method: str
    learning_rate: float | None
    seed: int
    scores: Mapping[str, float]
    costs: Mapping[str, float | None]
    confounds: tuple[str, ...]  # what differs from the runs beside it, besides the method


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: one model, one data set and one protocol."""

    key: str
    title: str
    facts: tuple[Fact, ...]  # shared by its runs, and not by all of the report
    scores: tuple[str, ...]  # in the order of the columns
    costs: tuple[str, ...]
    baseline: Mapping[str, float]  # of the untouched model; empty if runs differ in it
    configurations: tuple[Configuration, ...]
    axes: tuple[Axis, ...]
    fronts: Mapping[str, Mapping[str, tuple[str, ...]]]  # Pareto fronts by score and cost: keys, the cheapest first
    findings: tuple[Finding, ...]
    comparisons: tuple[Comparison, ...]
    floors: tuple[NoiseFloor, ...]
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    published: tuple[Published, ...] = ()  # results of others on this model and data


@dataclass(frozen=True)
class Shape:
    """Whether the runs of one group have the shape that a paper leads one to expect."""

    group: str  # key
    title: str  # of the group
    claim: str
    source: str
    figures: str  # as published
    verdict: Verdict
    rules: tuple[Judged, ...]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return "underpowered: these runs cannot tell" if self.verdict == "underpowered" else f"shape {self.verdict}"


@dataclass(frozen=True)
class Section:
    """What a function of the user's own adds (``report.sections``): paragraphs, then a table."""

    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Report:
    """The whole."""

    title: str
    created: str
    command: str  # that makes this report again
    commands: tuple[str, ...]  # that made its runs, if a sweep's manifest keeps them
    chosen: str  # in words: which runs, from where
    facts: tuple[Fact, ...]  # what all runs share
    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]  # of all groups
    failures: tuple[Run, ...]  # runs without a result
    notes: tuple[str, ...] = ()
    order: tuple[str, ...] = ()  # fingerprints of a sweep's plans, in the order of its grid
    sections: tuple[Section, ...] = ()  # of the user's own
    shapes: tuple[Shape, ...] = ()  # one for each group, if an experiment says what to expect

    @property
    def headlines(self) -> tuple[Finding, ...]:
        """Those on the first score of each group, and on the loss."""
        first = {(group.key, name) for group in self.groups for name in (*group.scores[:1], "loss")}
        return tuple(finding for finding in self.findings if (finding.group, finding.metric) in first)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Of all groups."""
        return tuple(run for group in self.groups for run in group.runs)
