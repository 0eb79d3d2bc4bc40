"""Trackers as a run starts and uses them."""

from pathlib import Path
from typing import Any

from harness.config.schema import Tracker, Tracking
from harness.trackers.base import TrackerRun, start_tracker


def tracker(name: str, folder: Path, mode: str = "offline", **changes: Any) -> Tracker:
    values = {"entity": None, "tags": [], "notes": None, "job_type": None, "system_metrics": False, "artifact": False}
    return Tracker(name=Tracking(name), project="toy", mode=mode, dir=str(folder), **{**values, **changes})


def start(settings: Tracker, **changes) -> TrackerRun:
    values = {
        "fingerprint": "f" * 64, "config": {"lora": {"r": 4}, "text": "中文"}, "group": "sweep-1",
        "name": "peft=lora lora.r=4", "tags": ["lora", "tiny"], "run_id": None,
    }  # fmt: skip
    return start_tracker(settings, **{**values, **changes})


def play(run: TrackerRun, ok: bool) -> None:
    for step in (1, 2, 3):
        run.log(step, {"train/loss": 1.0 / step})
    run.summary({"after/exact_match": 0.625})
    run.table("predictions", ["prompt", "after"], [["问题|one\nline", "<b>答案</b>"], ["two", None]])
    run.finish(ok)
