"""Code of the user's own that a plan uses: its faults, and its hashes, which are part of the fingerprint."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.config import schema
from harness.data.checks import own_or_one_of
from harness.errors import ConfigFault
from harness.extensions import imports
from harness.extensions.sources import Code, code_of
from harness.methods.registry import OFFERED

CODE = "_code"  # end of the names of their hashes among a plan's inputs
METHOD, MODEL = f"method{CODE}", f"model{CODE}"
_TRACKER_METHODS = ("log", "summary", "table", "artifact", "record", "finish")


@dataclass(frozen=True)
class Use:
    """One thing that an import path names."""

    name: str  # of its hash among the inputs; "" if it changes no result
    kind: str  # method, metric, ..., as the record says
    key: str  # the setting that names it
    path: str


def uses(method: str, model: schema.Model, data: schema.Data, scoring: schema.Scoring) -> list[Use]:
    """What of a plan's settings is code of the user's own and can change a result."""
    found = [Use(METHOD, "method", f"peft={method}", OFFERED[method].path)] if method in OFFERED else []
    settings = (
        (MODEL, "model", "model.source", model.source),
        (f"format{CODE}", "format", "data.format", data.format),
        (f"template{CODE}", "template", "data.template", data.template),
        (f"scoring_template{CODE}", "template", "scoring.template", scoring.template),
        *((f"metric {path}{CODE}", "metric", "scoring.metrics", path) for path in sorted(set(scoring.metrics))),
    )
    return found + [Use(*each) for each in settings if imports.is_import_path(each[-1])]  # type: ignore[arg-type]


def code_digests(config: schema.Config) -> dict[str, str]:
    """Hash of the sources of each, by its name among the inputs.

    Raises:
        ConfigFault: one has no source file.
    """
    found = uses(config.peft.method, config.model, config.data, config.scoring)
    return {each.name: code_of(each.key, each.path).sha256[:16] for each in found}


def used_code(plan: Any, tracker: schema.Tracker) -> list[dict[str, Any]]:
    """What a record says of the code of the user's own: what for, import path, sources, installed package."""
    found = uses(plan.method, plan.model, plan.data, plan.scoring)
    if imports.is_import_path(tracker.name):
        found.append(Use("", "tracker", "tracker.name", tracker.name))
    return [{"kind": each.kind, "setting": each.key, **_code(each).as_dict()} for each in found]


def _code(use: Use) -> Code:
    return code_of(use.key, use.path)


def changed_code(plan: Any, metrics: bool = False) -> list[str]:
    """What of the code that shaped a run is gone or no longer what it was, one sentence each.

    Args:
        metrics: look at the metrics, instead of everything else.
    """
    found = []
    if METHOD in plan.inputs and plan.method not in OFFERED and not metrics:
        found.append(f"peft={plan.method} is not offered by any package here; install the one that has it")
    for use in uses(plan.method, plan.model, plan.data, plan.scoring):
        known = plan.inputs.get(use.name)
        if known is None or (use.kind == "metric") != metrics:
            continue
        try:
            imports.load(use.key, use.path)
            now = _code(use).sha256[:16]
        except ConfigFault as fault:
            found.append(str(fault))
            continue
        if now != known:
            found.append(f"{use.key}: {use.path} has changed since; restore it, or run the command again")
    return found


def tracker_faults(name: str) -> Iterator[str]:
    """Why a setting names no tracker."""
    if not imports.is_import_path(name):
        yield from own_or_one_of("tracker.name", name, schema.Tracking, "my_pkg.tracking:FileRun")
        return
    fault = imports.load_fault("tracker.name", name)
    if fault is not None:
        yield fault
        return
    made = imports.load("tracker.name", name)
    yield from imports.call_faults("tracker.name", name, made, ("settings", "start"), ("settings", "start"))
    lacking = [method for method in _TRACKER_METHODS if not callable(getattr(made, method, None))]
    if isinstance(made, type) and lacking:
        yield (
            f"tracker.name={name} lacks {', '.join(lacking)}; define the methods of "
            "harness.trackers.base.TrackerRun, or extend harness.trackers.base.NoRun"
        )


def section_faults(paths: list[str]) -> Iterator[str]:
    """Why sections of a report cannot be made."""
    for path in paths:
        if not imports.is_import_path(path):
            yield f"report.sections={path} is not an import path; write report.sections=[my_pkg.sections:costs]"
        elif fault := imports.load_fault("report.sections", path):
            yield fault
        else:
            value = imports.load("report.sections", path)
            yield from imports.call_faults("report.sections", path, value, ("report",), ("report",))
