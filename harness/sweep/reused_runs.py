"""What a command does with runs that it reuses: its labels go onto their records, and its tracker is told of them."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker, Tracking
from harness.errors import HarnessError
from harness.record import locks, store
from harness.record.labels import Labels
from harness.report.run_names import run_name
from harness.sweep.cells import Cell
from harness.trackers.send import send_record
from harness.trackers.wandb import in_sweep_of_wandb

log = logging.getLogger(__name__)


def label_and_send(reused: Iterable[tuple[Cell, Mapping[str, Any]]]) -> None:
    """Label these finished records, and send them to the tracker if they are not there yet.

    A run that cannot be sent or labeled stays a result; the console says why.
    """
    for cell, record in reused:
        try:
            changed = _labeled(cell, record) | _sent(cell, record)
            if changed:
                _rewrite(cell, dict(record) | changed)
        except (HarnessError, OSError) as error:
            log.warning("%s is reused, but its record and tracker stay as they are: %s", cell.plan.fingerprint, error)


def _labeled(cell: Cell, record: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that this command changes."""
    labels = Labels(cell.options.note, cell.options.tags).added_to(record)
    return {key: value for key, value in labels.items() if value and value != record.get(key)}


def _sent(cell: Cell, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's ``tracker`` after it was sent; {} if it need not be."""
    tracker, fingerprint = cell.options.tracker, cell.plan.fingerprint
    if tracker.name is Tracking.none:
        return {}
    former = record["tracker"] or {}
    if is_tracked(tracker, former):
        # A second run of the same result would look like a replicate.
        store.say_once(
            f"{fingerprint}: reused, and already in {tracker.name} as {former['id']}{_in_group(former)}: not sent again"
        )
        return {}
    sent = send_record(
        tracker,
        record,
        cell.folder,
        group=cell.options.sweep_name or "single",
        name=run_name(cell.plan, cell.name),
        tags=[cell.plan.method, cell.plan.model.name],
    )
    log.info("%s: reused, and sent to %s as %s", fingerprint, tracker.name, sent.id)
    notes = [*record["notes"], f"sent to {sent.name} as {sent.id} when it was reused"]
    if former.get("id"):
        notes.append(f"tracked before by {former['name']} as {former['id']}")
    return {"tracker": vars(sent), "notes": notes}


def is_tracked(tracker: Tracker, former: Mapping[str, Any]) -> bool:
    """Whether the tracked run that a record names is where this command's tracker would put it."""
    if former.get("name") != tracker.name or not former.get("id") or in_sweep_of_wandb():
        return False
    if any(key in former and former[key] != getattr(tracker, key) for key in ("project", "entity")):
        return False
    folder, run = Path(tracker.dir).expanduser(), former["id"]
    if tracker.name is Tracking.trackio:
        return any(folder.glob("*.db"))
    # An offline run that was not uploaded yet is there, too: `wandb sync` sends it.
    online = tracker.name is Tracking.wandb and tracker.mode == "online" and former.get("url") is not None
    return online or any(folder.glob(f"wandb/*run-*-{run}")) or (folder / run).is_dir()


def _in_group(former: Mapping[str, Any]) -> str:
    return f" (group {former['group']})" if former.get("group") else ""


def _rewrite(cell: Cell, record: Mapping[str, Any]) -> None:
    """Replace the record unless another process is running the plan again, which then writes its own."""
    lock = locks.take_lock(cell.folder)
    if lock is None:
        return
    with lock:
        now = cell.read_record()
        if now is not None and now["attempt"] == record["attempt"] and now["status"] == "finished":
            store.write_record(cell.options.runs_dir, record)
