"""Faults of settings that stages read after training or instead of it: reports, bundles, adapters, pages, trackers."""

from collections.abc import Iterator

from harness.config.schema import Config, Gguf, Quantization, Stage, Tracking
from harness.errors import above, at_least, brief, one_of
from harness.plan.devices import device_faults
from harness.plan.extensions import section_faults, tracker_faults
from harness.plan.values import texts
from harness.runtime.loopback import is_loopback


def tracking_faults(config: Config) -> Iterator[str]:
    """Of the tracker, and of what it alone can do."""
    tracker = config.tracker
    yield from tracker_faults(tracker.name)
    if tracker.name is Tracking.wandb:
        yield from one_of("tracker.mode", tracker.mode, ("offline", "online"))
    for key in ("artifact", "system_metrics"):
        if getattr(tracker, key) and tracker.name not in (Tracking.wandb, Tracking.trackio):
            yield f"tracker.{key}=true has no effect with tracker={tracker.name}; use tracker=wandb or trackio"


def report_faults(config: Config) -> Iterator[str]:
    """Of what a report reads and shows."""
    for name in ("runs", "runs_dirs"):
        value = getattr(config.report, name)
        if not texts(value):
            shown = brief(str(value))
            yield f"report.{name}={shown} is not a list of texts; write report.{name}=[a,b], or null for all"
    yield from section_faults(config.report.sections)
    yield from above("report.minimum_effect", config.report.minimum_effect, 0)


def stage_faults(config: Config) -> Iterator[str]:
    """Of what a single stage needs, or would ignore."""
    runs = config.diff.runs
    if config.stage is Stage.diff and not (isinstance(runs, list) and len(runs) == 2 and texts(runs)):
        yield f"diff.runs={brief(str(runs))} does not name two runs; write diff.runs=[3f2a,77b0]"
    if config.stage is Stage.archive and not any((config.report.where, config.report.sweep, config.report.runs)):
        yield (
            "stage=archive would take every run; choose some with report.where, report.sweep or report.runs, "
            "such as report.where='status == failed'"
        )
    if config.stage is Stage.import_results and not config.import_results.path:
        yield "import_results.path is null; name a result file of PEFT's method_comparison, or a folder of them"
    yield from _bundle(config)
    yield from _talking(config)
    yield from _planning(config)
    yield from _adapters(config)
    yield from _publishing(config)
    if config.confirm and not config.archive.delete:
        yield "confirm=true has nothing to confirm; it belongs to stage=archive archive.delete=true"


def _planning(config: Config) -> Iterator[str]:
    """stage=plan alone reads these settings, and the length of the longest row matters only on a device."""
    plan, planning = config.plan, config.stage is Stage.plan
    yield from device_faults(plan.device)
    yield from at_least("plan.tokens", plan.tokens, 2)
    given = {"device": plan.device, "tokens": plan.tokens, "capacity": "true" if plan.capacity else None}
    for name, value in given.items():
        if value is not None and not planning:
            yield f"plan.{name}={brief(str(value))} belongs to stage=plan; add stage=plan, or leave it out"
    if plan.tokens is not None and planning and plan.device is None:
        yield (
            f"plan.tokens={plan.tokens} has no effect without a device, on which a pass of that length is costed; add "
            "plan.device=here or a device's name, or leave it out"
        )


def _publishing(config: Config) -> Iterator[str]:
    """stage=push sends to a named place; a GGUF file is made of plain weights."""
    push, export = config.push, config.export
    if push.really and config.stage is not Stage.push:
        yield f"push.really=true has no effect with stage={config.stage.value}; it belongs to stage=push"
    if export.gguf is not Gguf.none and export.quantization is not Quantization.none:
        yield (
            f"export.gguf={export.gguf.value} is made of plain weights, not of export.quantization="
            f"{export.quantization.value}; set export.quantization=none, and export.gguf=q8_0 for a small file"
        )


def _adapters(config: Config) -> Iterator[str]:
    """Adapters from elsewhere, for the stages that read them."""
    given = config.adapter_path
    if given is None:
        return
    shown = brief(str(given))
    if not texts(given) or not given or not all([given] if isinstance(given, str) else given):
        yield f"adapter_path={shown} is not a folder, a hub name or a list of these; write adapter_path=[a,b]"
    elif config.stage not in (Stage.score, Stage.export, Stage.chat, Stage.serve):
        yield (
            f"adapter_path={shown} is for stage=score, export, chat and serve, not stage={config.stage.value}; "
            "leave it out"
        )
    elif config.run is not None:
        yield f"adapter_path={shown} and run={config.run} both name an adapter; leave one of them out"
    elif config.stage is Stage.export and not isinstance(given, str) and len(given) > 1:
        yield f"adapter_path={shown}: stage=export writes one model; name one adapter"
    elif config.stage is Stage.chat and not isinstance(given, str) and len(given) > 1:
        yield f"adapter_path={shown}: stage=chat talks to one adapter; name one, or use stage=serve"


def _talking(config: Config) -> Iterator[str]:
    """stage=chat and stage=serve take messages where they run; the page is for this machine unless told otherwise."""
    serve = config.serve
    if config.input is not None and config.stage in (Stage.chat, Stage.serve):
        yield (
            f"input={brief(config.input)} has no effect with stage={config.stage.value}, where the messages are the "
            "input; leave it out"
        )
    if not 0 <= serve.port <= 65535:
        yield f"serve.port={serve.port} is not a port; use 1 to 65535, or 0 for a free one"
    if not serve.allow_remote and not is_loopback(serve.host):
        yield (
            f"serve.host={brief(serve.host)} is an address that other machines can reach, and the page asks for no "
            "password; use serve.host=127.0.0.1, or allow it with serve.allow_remote=true"
        )


def _bundle(config: Config) -> Iterator[str]:
    """stage=bundle chooses runs; stage=verify needs an archive."""
    bundle, report = config.bundle, config.report
    chosen = any((report.where, report.sweep, report.runs, bundle.claim))
    if config.stage is Stage.bundle and not chosen:
        yield (
            "stage=bundle would take every run; choose some with report.runs, report.sweep, report.where or "
            "bundle.claim, such as report.sweep=mine"
        )
    if config.stage is Stage.verify and not bundle.path:
        yield "bundle.path is null; name the archive that stage=bundle wrote: bundle.path=mine.tar.gz"
    yield from at_least("bundle.runs", bundle.runs, 1)
    yield from at_least("bundle.tolerance", bundle.tolerance, 0)
