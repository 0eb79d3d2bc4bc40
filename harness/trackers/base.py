"""Experiment trackers: W&B, TensorBoard or none; one tracked run per plan, closed with its true state.

A tracker shows what the record holds; nothing is read back from it. W&B is offline by default, so that nothing
needs a login; ``wandb sync DIR`` uploads later. Neither library is imported unless it is used.
"""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from harness.config.schema import Tracker, Tracking
from harness.errors import RunFault
from harness.record.redact import clean, redactor
from harness.runtime import distributed
from harness.trackers.tensorboard import TensorBoardRun
from harness.trackers.wandb import WandbRun


class TrackerRun(Protocol):
    """One tracked run."""

    id: str | None  # kept in the record; passed to ``start_tracker``, it continues the run

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log points of curves; steps never decrease."""

    def summary(self, values: dict[str, float]) -> None:
        """Log the final figures."""

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Log rows of text and numbers, such as predictions."""

    def finish(self, ok: bool) -> None:
        """Close the run as finished or failed."""


def start_tracker(
    tracker: Tracker,
    *,
    fingerprint: str,
    config: dict[str, Any],
    group: str,
    name: str,
    tags: list[str],
    run_id: str | None,
) -> TrackerRun:
    """Open a run, or continue the one with this ``run_id``; only the main process tracks.

    Raises:
        RunFault: the folder cannot be made, or the tracker cannot start.
    """
    if tracker.name is Tracking.none or not distributed.is_main_process():
        return NoRun()
    # With the fingerprint alone, a rerun of the plan would be joined to the earlier run.
    run_id = run_id or f"{fingerprint[:12]}-{secrets.token_hex(3)}"
    tracker = replace(tracker, dir=str(Path(tracker.dir).expanduser()))
    try:
        Path(tracker.dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFault(
            f"tracker.dir={tracker.dir} cannot be made ({error.strerror}); set a writable folder, or tracker=none"
        ) from error
    redact = redactor()
    config = clean({**config, "fingerprint": fingerprint}, "", [], redact)
    group, name, tags = redact(group), redact(name), [redact(tag) for tag in tags]
    if tracker.name is Tracking.wandb:
        return WandbRun(replace(tracker, project=redact(tracker.project)), config, group, name, tags, run_id)
    return TensorBoardRun(Path(tracker.dir) / run_id, config, group, name, tags, run_id)


class NoRun:
    """Tracks nothing; the record does not depend on a tracker."""

    id: str | None = None

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def summary(self, values: dict[str, float]) -> None: ...

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None: ...

    def finish(self, ok: bool) -> None: ...
