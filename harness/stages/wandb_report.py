"""stage=report report.wandb=true: build the report in W&B, or leave what builds it."""

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.errors import RunFault
from harness.record.files import write_json
from harness.record.redact import redactor
from harness.report.choose import FoundRun
from harness.report.model import Report
from harness.report.texts import short_path
from harness.report.wandb_report import TrackedRuns, build_wandb_report, specification, tracked_runs
from harness.trackers.wandb import project_name, require_login

log = logging.getLogger(__name__)

NAME = "wandb_report.json"  # in the report's folder


def publish(report: Report, runs: Sequence[FoundRun], tracker: Tracker, folder: Path) -> None:
    """Save the report in W&B and print its address; offline, write its specification and print how to publish it.

    A report that this folder has published before is replaced.

    Raises:
        RunFault: no run is in W&B, or W&B refuses.
    """
    tracked = tracked_runs(runs)
    _say_what_is_missing(tracked, len(runs))
    project, entity = project_name(tracked.project or tracker.project), tracker.entity or tracked.entity
    if tracker.mode != "online":
        built = build_wandb_report(report, tracked, project, None)
        content = {"project": project, "entity": entity, "title": built.title, "spec": json.loads(specification(built))}
        _write(folder, _published(folder) | content)
        _print_commands(folder, tracker)
        return
    require_login("online")
    with _faults_of_wandb(project):
        entity = entity or _own_entity()
        built = build_wandb_report(report, tracked, project, entity)
        built.id = _id_to_replace(folder, project, entity)
        built.save()
        content = {"project": project, "entity": entity, "title": built.title, "id": built.id, "url": built.url}
        _write(folder, content | {"spec": json.loads(specification(built))})
    print(built.url)


def _say_what_is_missing(tracked: TrackedRuns, runs: int) -> None:
    if not tracked.ids:
        raise RunFault(
            "report.wandb=true, but none of these runs is in W&B; run their command again with tracker=wandb, which "
            "sends finished runs without training them"
        )
    if tracked.missing:
        log.warning(
            "%d of %d runs were never sent to W&B and are not in its report: %s; their command with tracker=wandb "
            "sends them",
            *(len(tracked.missing), runs, ", ".join(tracked.missing)),
        )
    if tracked.elsewhere:
        log.warning(
            "%d of %d runs are in another W&B project than %s and not in its report: %s",
            *(len(tracked.elsewhere), runs, tracked.project, ", ".join(tracked.elsewhere)),
        )


def _print_commands(folder: Path, tracker: Tracker) -> None:
    """How to publish what was written."""
    again = [word for word in map(redactor(), sys.argv[1:]) if not word.startswith("tracker.mode=")]
    place = Path(tracker.dir).expanduser() / "wandb"
    log.info("%s: the report for W&B; to publish it, first upload the runs:", short_path(folder / NAME))
    print(f"    wandb sync {shlex.quote(short_path(place.absolute()))}/offline-run-*")
    log.info("and then:")
    print("    wandb login")
    print(f"    {shlex.join(['python', '-m', 'harness', *again, 'tracker.mode=online'])}")


def _published(folder: Path) -> dict[str, Any]:
    """What an earlier command left about the report that it published."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {key: content[key] for key in ("id", "url", "project", "entity") if content.get(key)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _id_to_replace(folder: Path, project: str, entity: str) -> str:
    known = _published(folder)
    return str(known.get("id", "")) if (known.get("project"), known.get("entity")) == (project, entity) else ""


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / NAME, content)


def _own_entity() -> str:
    import wandb

    return str(wandb.Api().default_entity)


@contextmanager
def _faults_of_wandb(project: str) -> Iterator[None]:
    """Its errors, as one that says what to do."""
    import wandb

    try:
        yield
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise RunFault(
            f"W&B did not accept the report ({error}); are the runs uploaded to the project {project}? Upload them "
            "with `wandb sync`, or set tracker.entity to the user or team that has them"
        ) from error
