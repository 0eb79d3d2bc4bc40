"""Send a tracker what is on record: at the end of a run, or all of it for a run that is reused."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.record.redact import redactor
from harness.record.run_record import Tracked
from harness.record.store import RECORD_NAME
from harness.trackers.base import TrackerRun, start_tracker, tracked
from harness.trackers.figures import config_of, points_of, summary_of

SHOWN_PREDICTIONS = 200  # rows of the table


def send_record(
    tracker: Tracker, record: Mapping[str, Any], folder: Path, *, group: str, name: str, tags: list[str]
) -> Tracked:
    """Make a tracked run of a finished record, with its curves, figures and predictions.

    Args:
        folder: of the run.

    Raises:
        RunFault: the tracker cannot start.
    """
    run = start_tracker(
        tracker,
        fingerprint=record["fingerprint"],
        config=config_of(record),
        group=group,
        name=name,
        tags=tags,
        run_id=None,
    )
    ok = False
    try:
        for step, values in points_of(record):
            run.log(step, values)
        send_predictions(run, _predictions(folder, record))
        send_result(run, tracker, record, folder)
        ok = record["status"] == "finished"
    finally:
        run.finish(ok)
    return tracked(tracker, run, group)


def send_result(run: TrackerRun, tracker: Tracker, record: Mapping[str, Any], folder: Path) -> None:
    """The figures, the record itself, and the adapter if the settings say so and it was kept."""
    run.summary(summary_of(record))
    run.record(folder / RECORD_NAME)
    adapter = record["adapter"]
    if tracker.artifact and adapter is not None and (folder / adapter["path"]).is_dir():
        about = {"method": record["method"], "fingerprint": record["fingerprint"], **record["scores"]["after"]}
        run.artifact(f"adapter-{record['fingerprint']}", folder / adapter["path"], about)


def send_predictions(run: TrackerRun, rows: Sequence[Mapping[str, Any]]) -> None:
    """The first rows as a table, without secrets."""
    if not rows:
        return
    redact, shown = redactor(), ("prompt", "reference", "before", "after")
    run.table(
        "predictions", list(shown), [[redact(str(row[key])) for key in shown] for row in rows[:SHOWN_PREDICTIONS]]
    )


def _predictions(folder: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not record["predictions"]:
        return []
    with open(folder / record["predictions"], encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, SHOWN_PREDICTIONS)]
