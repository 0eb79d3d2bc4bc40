"""Experiment trackers: W&B, Trackio, TensorBoard, one of the user's own, or none.

There is one tracked run per plan, closed with its true state.

A tracker shows what the record holds; nothing is read back from it. W&B is offline by default, so that nothing
needs a login; ``wandb sync DIR`` uploads later. No library is imported unless it is used.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from harness.config.schema import Tracker, Tracking
from harness.errors import RunFault, first_line
from harness.extensions import imports
from harness.record.redact import clean, redactor
from harness.record.run_record import Tracked
from harness.runtime import distributed
from harness.trackers.start import Start
from harness.trackers.tensorboard import TensorBoardRun
from harness.trackers.trackio import TrackioRun
from harness.trackers.wandb import WandbRun


class TrackerRun(Protocol):
    """One tracked run."""

    id: str | None  # kept in the record; passed to ``start_tracker``, it continues the run
    url: str | None  # where people see it, if it is online

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log points of curves; steps never decrease."""

    def summary(self, values: Mapping[str, float | str]) -> None:
        """Log the final figures."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Log rows of text and numbers, such as predictions."""

    def artifact(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        """Keep the files of a folder with the run."""

    def record(self, file: Path) -> None:
        """Keep the run's record, which says all."""

    def finish(self, ok: bool) -> None:
        """Close the run as finished or failed."""


def start_tracker(
    tracker: Tracker,
    *,
    fingerprint: str,
    config: Mapping[str, Any],
    group: str,
    name: str,
    tags: list[str],
    run_id: str | None,
) -> TrackerRun:
    """Open a run, or continue the one with this ``run_id``; only the main process tracks.

    Args:
        tags: besides those of the settings.

    Raises:
        RunFault: the folder cannot be made, or the tracker cannot start.
    """
    if tracker.name is Tracking.none or not distributed.is_main_process():
        return NoRun()
    # With the fingerprint alone, a rerun of the plan would be joined to the earlier run.
    run_id = run_id or f"{fingerprint[:12]}-{secrets.token_hex(3)}"
    folder = Path(tracker.dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFault(
            f"tracker.dir={tracker.dir} cannot be created ({error.strerror}); set a writable folder, or tracker=none"
        ) from error
    redact = redactor()
    settings = replace(tracker, **{key: _redacted(getattr(tracker, key), redact) for key in _SENT}, dir=str(folder))
    start = Start(
        config=clean({**config, "configuration": _without_seed(name), "fingerprint": fingerprint}, "", [], redact),
        group=redact(group),
        name=redact(name),
        tags=[*map(redact, tags), *settings.tags],
        run_id=run_id,
    )
    if imports.is_import_path(tracker.name):
        return _own_run(settings, start)
    match tracker.name:
        case Tracking.wandb:
            return WandbRun(settings, start)
        case Tracking.trackio:
            return TrackioRun(settings, start)
    return TensorBoardRun(settings, start)


def _own_run(settings: Tracker, start: Start) -> TrackerRun:
    """A run in the user's own tracker.

    Raises:
        RunFault: it cannot start.
    """
    try:
        run: TrackerRun = imports.load("tracker.name", settings.name)(settings=settings, start=start)
    except Exception as error:  # whatever a class of others raises
        raise RunFault(
            f"tracker.name={settings.name} cannot start ({first_line(error)}); fix it, or set tracker=none"
        ) from error
    return run


_SENT = ("project", "entity", "tags", "notes", "job_type")  # settings that a tracker shows


def _redacted(value: Any, redact: Any) -> Any:
    if isinstance(value, list):
        return [redact(each) for each in value]
    return redact(value) if isinstance(value, str) else value


def _without_seed(name: str) -> str:
    """What runs that differ only in their seed have in common, for plots over seeds."""
    return " ".join(word for word in name.split() if not word.startswith("seed="))


def tracked(tracker: Tracker, run: TrackerRun, group: str) -> Tracked:
    """The run as its record names it."""
    if run.id is None:
        return Tracked(str(tracker.name), None)
    return Tracked(str(tracker.name), run.id, tracker.project, tracker.entity, group, run.url)


class NoRun:
    """Tracks nothing; the record does not depend on a tracker."""

    id: str | None = None
    url: str | None = None

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def summary(self, values: Mapping[str, float | str]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def artifact(self, name: str, folder: Path, about: Mapping[str, Any]) -> None: ...

    def record(self, file: Path) -> None: ...

    def finish(self, ok: bool) -> None: ...
