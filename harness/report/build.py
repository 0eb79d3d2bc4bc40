"""Make a report from records. Reads records only: no torch, no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from harness.config.schema import Paper
from harness.report import alike, published, verdicts
from harness.report.choose import FoundRun
from harness.report.facts import common_facts, shown_facts
from harness.report.fields import COSTS, Record, flat, method_name
from harness.report.measured import classes, standard_errors
from harness.report.model import Configuration, Group, Report, Run, Section
from harness.report.remarks import cut_answers, other_code, pruned_runs, said_of_runs, shared_runs
from harness.report.run_rows import run_row
from harness.report.sections import own_sections
from harness.report.series import axes, fronts
from harness.report.shape.shapes import shapes_of
from harness.report.texts import Clean, cleaner, labels_of, natural_order, setting_text, title_of, value_text
from harness.scoring.catalog import SCORES, learn_record


@dataclass(frozen=True)
class Winner:
    """A configuration that was chosen on one split and run again on another."""

    chosen: tuple[str, ...]  # its runs on the split of the choice
    final: tuple[str, ...]  # its runs with fresh seeds
    candidates: int  # settings that it was chosen from
    score: str
    split: str
    per: str  # "lora", or "method=lora lora.r=8"


@dataclass(frozen=True)
class Request:
    """How a report is made, besides its runs."""

    title: str = "Runs"
    chosen: str = ""
    command: str = ""
    commands: tuple[str, ...] = ()
    reference: str | None = None
    minimum_effect: float | None = None
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by fingerprint, overrides of a sweep's cells
    missing: tuple[Run, ...] = ()  # cells of a sweep that have no record
    winners: tuple[Winner, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()  # import paths of functions that add a section each
    paper: Paper | None = None  # what the runs are expected to show


def build_report(found: Sequence[FoundRun], request: Request) -> Report:
    """The report of these runs.

    Raises:
        ConfigFault: no run or configuration is ``request.reference``, or several are.
    """
    clean = cleaner()
    for run in found:
        learn_record(run.record)
    foreign = [run.record for run in found if published.is_foreign(run.record)]
    found = [run for run in found if not published.is_foreign(run.record)]
    effective = {run.fingerprint: alike.effective(run.record) for run in found}
    groups: dict[str, list[FoundRun]] = {}
    for run in found:
        groups.setdefault(alike.group_key(effective[run.fingerprint]), []).append(run)
    common = common_facts([run.record for run in found])
    drafts = [_draft(key, runs, effective, clean, bool(request.cells)) for key, runs in groups.items()]
    reference = _reference(drafts, request.reference)
    made = [_group(draft, common, reference, request, clean) for draft in drafts]
    made = _distinct_titles(made, {key: effective[runs[0].fingerprint] for key, runs in groups.items()}, clean)
    made = _with_published(made, foreign, {each.key: list(each.records.values()) for each in drafts})
    failures = [run for group in made for run in group.runs if run.state != "finished"]
    report = Report(
        title=clean(request.title),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=clean(request.command),
        commands=tuple(map(clean, request.commands)),
        chosen=clean(request.chosen),
        facts=tuple(shown_facts(common, clean)),
        groups=tuple(made),
        findings=tuple(finding for group in made for finding in group.findings),
        failures=(*failures, *request.missing),
        notes=(*map(clean, request.notes), *other_code(found)),
        order=tuple(request.cells),
        shapes=shapes_of(found, made, request.paper, clean),
    )
    if not request.sections:
        return report
    sections, notes = own_sections(report, request.sections)
    cleaned = tuple(
        Section(*(_cleaned(part, clean) for part in (each.title, each.text, each.columns, each.rows)))
        for each in sections
    )
    return replace(report, sections=cleaned, notes=(*report.notes, *map(clean, notes)))


def _cleaned(part: Any, clean: Clean) -> Any:
    """Text, or tuples of it, as a report may show it."""
    return clean(part) if isinstance(part, str) else tuple(_cleaned(each, clean) for each in part)


def _with_published(
    groups: Sequence[Group], foreign: Sequence[Record], own: Mapping[str, Sequence[Record]]
) -> list[Group]:
    """The groups with the published results of their model and data; those of no group follow by themselves."""
    beside: dict[str, list[Record]] = {group.key: [] for group in groups}
    alone: dict[str, list[Record]] = {}
    for record in foreign:
        places = [key for key, records in own.items() if published.belongs_to(record, records[0])]
        for key in places:
            beside[key].append(record)
        if not places:
            alone.setdefault(published.place(record), []).append(record)
    made = [
        replace(group, published=published.published_rows(beside[group.key], own[group.key]))
        if beside[group.key]
        else group
        for group in groups
    ]
    return [*made, *(_published_alone(key, records) for key, records in alone.items())]


def _published_alone(key: str, records: Sequence[Record]) -> Group:
    empty = dict.fromkeys(("scores", "costs", "facts", "configurations", "axes", "findings", "comparisons"), ())
    empty |= dict.fromkeys(("floors", "notes", "runs"), ())
    title = f"{title_of(records[0]['plan'])}, published"
    rows = published.published_rows(records, [])
    return Group(key=key, title=title, baseline={}, fronts={}, published=rows, **empty)


@dataclass(frozen=True)
class _Draft:
    """A group before it is judged."""

    key: str
    runs: Sequence[FoundRun]
    records: Mapping[str, Record]  # by fingerprint
    keys: Mapping[str, str]  # of configurations, by fingerprint
    first: Mapping[str, Record]  # by key of configuration, the record of its first run
    differ: Mapping[str, Mapping[str, Any]]  # by key, settings that tell it from others
    settings: Mapping[str, str]  # by key, the same in words
    plan: Mapping[str, Any]  # the effective one of a run
    scores: verdicts.GroupScores


def _draft(key: str, runs: Sequence[FoundRun], effective: Mapping[str, Any], clean: Clean, is_grid: bool) -> _Draft:
    records = {run.fingerprint: run.record for run in runs}
    keys = {name: alike.configuration_key(record, effective[name]) for name, record in records.items()}
    first: dict[str, str] = {}
    for name, own in keys.items():
        first.setdefault(own, name)
    methods = list(dict.fromkeys(method_name(record) for record in records.values()))
    first = dict(sorted(first.items(), key=lambda each: methods.index(method_name(records[each[1]]))))
    differ = alike.varying({own: (method_name(records[name]), effective[name]) for own, name in first.items()})
    settings = {own: clean(setting_text(differ[own])) for own in first}
    if not is_grid:  # a sweep keeps the order that its grid has within each method
        first = dict(sorted(first.items(), key=lambda each: natural_order(records[each[1]], settings[each[0]])))
    # The statistics name configurations in their findings.
    labels = labels_of({own: (method_name(records[name]), settings[own], differ[own]) for own, name in first.items()})
    return _Draft(
        key=key,
        runs=runs,
        records=records,
        keys=keys,
        first={own: records[name] for own, name in first.items()},
        differ=differ,
        settings=settings,
        plan=effective[runs[0].fingerprint],
        scores=verdicts.read_group(key, runs, keys, labels),
    )


def _reference(drafts: Sequence[_Draft], text: str | None) -> str | None:
    """The key of the configuration that ``report.reference`` names."""
    if text is None:
        return None
    from harness.report.statistics.analysis import resolve_reference

    return resolve_reference([score for draft in drafts for score in draft.scores.scores], text)


def _group(draft: _Draft, common: Mapping[str, Any], reference: str | None, request: Request, clean: Clean) -> Group:
    made = []
    for run in draft.runs:
        key, cells = draft.keys[run.fingerprint], request.cells.get(run.fingerprint, ())
        made.append(run_row(run, key, draft.settings[key], cells, clean))
    finished = [run for run in made if run.state == "finished"]
    scores = _scores(finished)
    marked = alike.marks(draft.first)
    configurations: list[Configuration] = []
    for key in draft.first:
        mine = [run for run in finished if run.configuration == key]
        counted = sorted((run for run in mine if run.fingerprint in draft.scores.counted), key=lambda run: run.seed)
        if counted:
            each = _configuration(key, counted, draft, marked[key], request)
            if len(mine) > len(counted):
                more = f"{len(mine) - len(counted)} more under other numerics"
                each = replace(each, marks=(*each.marks, more))
            configurations.append(replace(each, number=len(configurations) + 1))
    known = tuple(name for name in COSTS if any(each.costs[name] is not None for each in configurations))
    rows = [(each.number, draft.records[run]) for each in configurations for run in each.runs]
    judged = verdicts.judge(draft.scores.scores, configurations, reference, request.minimum_effect)
    here = common_facts(list(draft.records.values()))
    return Group(
        key=draft.key,
        title=clean(title_of(draft.records[draft.runs[0].fingerprint]["plan"])),
        facts=tuple(shown_facts({name: value for name, value in here.items() if name not in common}, clean)),
        scores=scores,
        costs=known,
        baseline=_baseline(finished),
        configurations=judged.configurations,
        axes=axes(judged.configurations),
        fronts=fronts(judged.configurations, scores, known),
        findings=judged.findings,
        comparisons=judged.comparisons,
        floors=judged.floors,
        notes=(
            *alike.differences(rows, scores),
            *cut_answers(configurations, draft.records),
            *standard_errors([(str(number), record) for number, record in rows]),
            *classes([(str(number), record) for number, record in rows]),
            *shared_runs(finished),
            *pruned_runs(made),
            *said_of_runs(configurations, draft.records),
            *draft.scores.notes,
        ),
        runs=tuple(made),
    )


def _configuration(
    key: str, runs: Sequence[Run], draft: _Draft, marks: Sequence[str], request: Request
) -> Configuration:
    record = draft.first[key]
    names = dict.fromkeys(name for run in runs for name in run.after)
    changes = {
        name: _mean([run.after[name] - run.before[name] if _both(run, name) else None for run in runs])
        for name in names
    }
    return Configuration(
        key=key,
        number=0,
        method=method_name(record),
        setting=runs[0].setting,
        learning_rate=record["plan"].get("learning_rate"),
        seeds=tuple(run.seed for run in runs),
        runs=tuple(run.fingerprint for run in runs),
        cells=tuple(dict.fromkeys(cell for run in runs for cell in run.cells)),
        scores={},
        changes={name: change for name, change in changes.items() if change is not None},
        costs={name: _mean([run.costs[name] for run in runs]) for name in COSTS},
        values=dict(draft.differ[key]),
        rate_given=record["plan"].get("trainer", {}).get("learning_rate") is not None,
        marks=tuple(marks),
        selected=_selected({run.fingerprint for run in runs}, request.winners),
    )


def _both(run: Run, name: str) -> bool:
    return run.after.get(name) is not None and run.before.get(name) is not None


def _selected(fingerprints: set[str], winners: Sequence[Winner]) -> str:
    for winner in winners:
        by = f"of {winner.candidates} by {winner.score} on {winner.split}"
        if fingerprints & set(winner.final):
            return f"chosen: best {by}"
        if fingerprints & set(winner.chosen):
            return f"chosen for {winner.per}, {by}"
    return ""


def _distinct_titles(groups: Sequence[Group], plans: Mapping[str, Mapping[str, Any]], clean: Clean) -> list[Group]:
    """The groups, with what tells those of one title apart."""
    distinct = []
    for group in groups:
        others = [each for each in groups if each.title == group.title]
        if len(others) == 1:
            distinct.append(group)
            continue
        parts = {each.key: dict(flat(alike.comparable(plans[each.key]))) for each in others}
        names = dict.fromkeys(name for each in parts.values() for name in each)
        differing = [name for name in names if len({repr(each.get(name)) for each in parts.values()}) > 1]
        own = [f"{name}={value_text(parts[group.key].get(name))}"[:80] for name in differing]
        distinct.append(replace(group, title=clean(f"{group.title}; {', '.join(own)}")))
    return distinct


def _scores(runs: Sequence[Run]) -> tuple[str, ...]:
    present = {name for run in runs for name in run.after}
    if any(run.validation_loss is not None for run in runs):
        present.add("validation_loss")
    return (*(name for name in SCORES if name in present), *sorted(present - set(SCORES)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _baseline(runs: Sequence[Run]) -> dict[str, float]:
    """The scores of the untouched model, if all runs share them to six digits."""
    rounded = {tuple(sorted((name, f"{value:.6g}") for name, value in run.before.items())) for run in runs}
    return dict(runs[0].before) if len(rounded) == 1 else {}
