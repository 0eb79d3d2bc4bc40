"""Make a report from records. Reads records only: no torch, no model."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.config.schema import Paper
from harness.methods.registry import METHODS
from harness.plan.spec import plain
from harness.record import provenance
from harness.record.readings import continuation_note, prune_reason, stopping_note, validation_loss
from harness.record.redact import redactor
from harness.report import alike, published, verdicts
from harness.report.choose import FoundRun
from harness.report.fields import COSTS, Record, costs, flat, method_name
from harness.report.measured import classes, standard_errors
from harness.report.model import Configuration, Fact, Group, Report, Run, Section
from harness.report.sections import own_sections
from harness.report.series import axes, curve, fronts
from harness.report.shape.shapes import shapes_of
from harness.runtime.terminal import printable
from harness.scoring.catalog import SCORES, learn_record

LONGEST = 300  # characters of a value among the details of a run

# Facts that a reader needs to repeat an experiment, in this order; the others follow from the plan.
_FACTS = (
    *("model.name", "model.path", "model.revision", "model.dtype", "model.quantization", "model.prune"),
    *("data.name", "data.path", "data.subset", "data.template", "data.max_tokens", "rows.train", "rows.validation"),
    *("rows.test", "trainer.objective", "trainer.epochs", "trainer.max_steps", "trainer.batch_size"),
    *("trainer.gradient_accumulation_steps", "trainer.schedule", "trainer.warmup_share", "trainer.weight_decay"),
    *("trainer.keep_best", "scoring.split", "scoring.metrics", "scoring.tokenize"),
    *("scoring.generation.max_new_tokens", "scoring.generation.do_sample", "code.version", "code.git_commit"),
    *("device.type", "device.name", "device.threads", "inferred.dtype", "inferred.base_weights"),
    *("versions.python", "versions.torch", "versions.transformers", "versions.peft", "seed"),
)


Clean = Callable[[str], str]


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
    clean = _cleaner()
    for run in found:
        learn_record(run.record)
    foreign = [run.record for run in found if published.is_foreign(run.record)]
    found = [run for run in found if not published.is_foreign(run.record)]
    effective = {run.fingerprint: alike.effective(run.record) for run in found}
    groups: dict[str, list[FoundRun]] = {}
    for run in found:
        groups.setdefault(alike.group_key(effective[run.fingerprint]), []).append(run)
    common = _common([run.record for run in found])
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
        facts=tuple(_facts(common, clean)),
        groups=tuple(made),
        findings=tuple(finding for group in made for finding in group.findings),
        failures=(*failures, *request.missing),
        notes=(*map(clean, request.notes), *_other_code(found)),
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
    title = f"{_title(records[0]['plan'])}, published"
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
    settings = {own: clean(_setting(differ[own])) for own in first}
    if not is_grid:  # a sweep keeps the order that its grid has within each method
        first = dict(sorted(first.items(), key=lambda each: _natural(records[each[1]], settings[each[0]])))
    # The statistics name configurations in their findings.
    labels = _labels({own: (method_name(records[name]), settings[own], differ[own]) for own, name in first.items()})
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


def _labels(configurations: Mapping[str, tuple[str, str, Mapping[str, Any]]]) -> dict[str, str]:
    """Names that tell configurations apart in a sentence: method and setting, and the learning rate if it is needed."""
    return {
        key: " ".join(part for part in (method, setting, _rate(differ)) if part)
        for key, (method, setting, differ) in configurations.items()
    }


def _rate(differ: Mapping[str, Any]) -> str:
    rate = differ.get("learning_rate")
    return "" if rate is None else f"rate {rate:.4g}"


def _reference(drafts: Sequence[_Draft], text: str | None) -> str | None:
    """The key of the configuration that ``report.reference`` names."""
    if text is None:
        return None
    from harness.report.statistics.analysis import resolve_reference

    return resolve_reference([score for draft in drafts for score in draft.scores.scores], text)


def _group(draft: _Draft, common: Mapping[str, Any], reference: str | None, request: Request, clean: Clean) -> Group:
    made = [_run(run, draft, request, clean) for run in draft.runs]
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
    here = _common(list(draft.records.values()))
    return Group(
        key=draft.key,
        title=clean(_title(draft.records[draft.runs[0].fingerprint]["plan"])),
        facts=tuple(_facts({name: value for name, value in here.items() if name not in common}, clean)),
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
            *_cut(configurations, draft.records),
            *standard_errors([(str(number), record) for number, record in rows]),
            *classes([(str(number), record) for number, record in rows]),
            *_shared_runs(finished),
            *_pruned(made),
            *_said_of_runs(configurations, draft.records),
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


def _run(found: FoundRun, draft: _Draft, request: Request, clean: Clean) -> Run:
    record, configuration = found.record, draft.keys[found.fingerprint]
    plan, error = record["plan"], record.get("error") or {}
    training = record.get("training", {})
    finished = record["status"] == "finished"
    predictions = record.get("predictions") if finished else None
    file = found.folder / predictions if predictions else None
    return Run(
        fingerprint=found.fingerprint,
        configuration=configuration,
        method=method_name(record),
        setting=draft.settings[configuration],
        seed=int(plan.get("seed", 0)),
        state=record["status"],
        folder=short_path(found.folder),
        cells=tuple(map(clean, request.cells.get(found.fingerprint, ()))),
        before=_numbers(record["scores"].get("before", {})) if finished else {},
        after=_numbers(record["scores"].get("after", {})) if finished else {},
        costs=costs(record) if finished else {**dict.fromkeys(COSTS), **{COSTS[0]: costs(record)[COSTS[0]]}},
        validation_loss=validation_loss(record) if finished else None,
        started=str(record.get("started", "")),
        finished=record.get("finished"),
        code=str(record["code"]["version"]),
        device=" ".join(str(part) for part in (record.get("device", {}).get(key) for key in ("type", "name")) if part),
        dtype=alike.dtype(record),
        error=clean(_why(record).strip().partition("\n")[0]),
        hint=clean(error.get("hint") or ""),
        notes=tuple(clean(note) for note in record.get("notes", ())),
        details={name: clean(value) if isinstance(value, str) else value for name, value in _details(record).items()},
        training=curve(training.get("curve")),
        validation=curve(training.get("validation")),
        predictions=file if file is not None and file.exists() else None,
    )


def _why(record: Record) -> str:
    """Why a run has no result."""
    if record["status"] == "pruned":
        return prune_reason(record["pruned"])
    return str((record.get("error") or {}).get("message") or "")


def missing_run(fingerprint: str, method: str, cells: Sequence[str], state: str = "not run") -> Run:
    """A cell of a sweep that has no record."""
    return Run(
        fingerprint=fingerprint,
        configuration="",
        method=method,
        setting="",
        seed=0,
        state=state,
        folder="",
        cells=tuple(map(_cleaner(), cells)),
        before={},
        after={},
        costs=dict.fromkeys(COSTS),
        validation_loss=None,
        started="",
        finished=None,
        code="",
        device="",
        dtype="",
    )


def _details(record: Record) -> dict[str, Any]:
    """Everything that two runs may differ in, by name; texts are cut."""
    parts = {key: record.get(key, {}) for key in ("audit", "rows", "versions", "device", "inferred", "seeds")}
    parts |= {"plan": record["plan"], "code": record["code"], "parameters": record.get("parameters", {})}
    parts |= {"times_s": record.get("times_s", {}), "memory_bytes": record.get("memory_bytes", {})}
    training = record.get("training", {})
    parts["training"] = {key: training[key] for key in training if key not in ("curve", "validation")}
    whole = ("details", "errors")  # tables of their own, not settings in which runs differ
    scores = {key: value for key, value in record["scores"].items() if key not in whole}
    parts["scores"] = {key: value for key, value in scores.items() if isinstance(value, Mapping)}
    details = {}
    for name, value in flat(parts):
        text = (
            value
            if isinstance(value, str | int | float | bool) or value is None
            else json.dumps(plain(value), ensure_ascii=False)
        )
        if isinstance(text, str) and len(text) > LONGEST:
            text = f"{text[:LONGEST]} ... ({len(text)} characters)"
        details[name.removeprefix("plan.")] = text
    return details


def _setting(differ: Mapping[str, Any]) -> str:
    """``r=8 epochs=4``; the learning rate has a column of its own."""
    hidden = ("learning_rate", "trainer.learning_rate")
    return " ".join(f"{name}={_text(value)}" for name, value in differ.items() if name not in hidden)


def _natural(record: Record, setting: str) -> tuple[int, list[tuple[float, str]], float]:
    """A key that sorts by method, then by setting with numbers by their size, then by learning rate."""
    method = method_name(record)
    place = list(METHODS).index(method) if method in METHODS else len(METHODS)
    parts = re.split(r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)", setting)
    return place, [(_number(part), part) for part in parts], record["plan"].get("learning_rate") or 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def _title(plan: Mapping[str, Any]) -> str:
    model, data = plan.get("model", {}), plan.get("data", {})
    title = f"{model.get('name') or 'unknown model'} on {data.get('name') or 'unknown data'}"
    split = plan.get("scoring", {}).get("split")
    return f"{title}, {split} split" if split else title


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
        own = [f"{name}={_text(parts[group.key].get(name))}"[:80] for name in differing]
        distinct.append(replace(group, title=clean(f"{group.title}; {', '.join(own)}")))
    return distinct


def _scores(runs: Sequence[Run]) -> tuple[str, ...]:
    present = {name for run in runs for name in run.after}
    if any(run.validation_loss is not None for run in runs):
        present.add("validation_loss")
    return (*(name for name in SCORES if name in present), *sorted(present - set(SCORES)))


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if value is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _baseline(runs: Sequence[Run]) -> dict[str, float]:
    """The scores of the untouched model, if all runs share them to six digits."""
    rounded = {tuple(sorted((name, f"{value:.6g}") for name, value in run.before.items())) for run in runs}
    return dict(runs[0].before) if len(rounded) == 1 else {}


def _cut(configurations: Sequence[Configuration], records: Mapping[str, Record]) -> list[str]:
    """How many answers reached the limit of their length, where any did."""
    texts: dict[str, list[int]] = {}
    for each in configurations:
        cut = records[each.runs[0]]["scores"].get("cut") or {}
        if cut.get("before") or cut.get("after"):
            text = f"{cut.get('after', 0)} of {cut['of']} (baseline {cut.get('before', 0)}) at {cut['limit']} tokens"
            texts.setdefault(text, []).append(each.number)
    parts = [f"row{'s' if numbers[1:] else ''} {alike.ranges(numbers)}: {text}" for text, numbers in texts.items()]
    return [f"answers cut by scoring.generation.max_new_tokens: {'; '.join(parts)}"] if parts else []


def _shared_runs(runs: Sequence[Run]) -> list[str]:
    shared = [run for run in runs if len(run.cells) > 1]
    return [
        f"run {run.fingerprint} answers {len(run.cells)} cells of the sweep, whose other settings this method ignores: "
        f"{'; '.join(run.cells)}"
        for run in shared
    ]


def _pruned(runs: Sequence[Run]) -> list[str]:
    """How many runs of each method were ended early, and what that means for those that were not."""
    counts = Counter(run.method for run in runs if run.state == "pruned")
    if not counts:
        return []
    parts = ", ".join(f"{count} of {method}" for method, count in counts.items())
    return [
        f"pruned by sweep.prune=halving on validation loss, within each method, and in no comparison: {parts}; the "
        "validation loss of those that were kept is lower than that of a fresh seed would be"
    ]


def _said_of_runs(configurations: Sequence[Configuration], records: Mapping[str, Record]) -> list[str]:
    """Which runs ended by their own validation loss, and which began with weights that others had trained."""
    named = {
        (f"{each.number}" if len(each.runs) == 1 else f"{each.number} (seed {seed})"): records[run]
        for each in configurations
        for run, seed in zip(each.runs, each.seeds, strict=True)
    }
    return [note for note in (stopping_note(named), continuation_note(named)) if note is not None]


def _other_code(found: Sequence[FoundRun]) -> list[str]:
    """Which results were made by another code version than the present one."""
    now = provenance.code_version()
    counts: dict[str, int] = {}
    for run in found:
        version = run.record["code"]["version"]
        if version != now and run.record["status"] == "finished":
            counts[version] = counts.get(version, 0) + 1
    return [
        f"{count} run{'s' if count > 1 else ''} made by code {version}, not by the present code {now}"
        for version, count in counts.items()
    ]


def _common(records: Sequence[Record]) -> dict[str, Any]:
    """The facts that all of these records have, with one value."""
    shared: dict[str, Any] = {}
    for number, record in enumerate(records):
        parts = {key: record.get(key, {}) for key in ("rows", "code", "device", "inferred", "versions")}
        facts = {name: value for name, value in (*flat(record["plan"]), *flat(parts)) if name in _FACTS}
        if number == 0:
            shared = facts
        else:
            shared = {name: value for name, value in shared.items() if name in facts and facts[name] == value}
    return {name: shared[name] for name in _FACTS if name in shared}


def _facts(values: Mapping[str, Any], clean: Clean) -> list[Fact]:
    return [Fact(name, clean(_text(value))) for name, value in values.items() if not _says_nothing(value)]


def _says_nothing(value: Any) -> bool:
    return value is None or value == "none" or (isinstance(value, float) and value == 0.0)


def _cleaner() -> Clean:
    """What a report shows of a text: no secret, and no control character; each format then escapes it for itself."""
    redact = redactor()
    return lambda text: printable(redact(str(text)))


def short_path(path: Path) -> str:
    """The path relative to the working folder if it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
