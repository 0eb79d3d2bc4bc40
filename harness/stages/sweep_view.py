"""The state of a sweep's runs, as their files tell it: manifest, records, locks and progress. No torch."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault
from harness.estimate import duration
from harness.record import lock_owners, locks, provenance, store
from harness.record import progress as progress_file
from harness.record.readings import stopped_early
from harness.report.cells import NOT_STARTED, shared_overrides, split_overrides
from harness.sweep import manifest

WAITING, STARTING, RUNNING, PAUSED = "waiting", "starting", "running", "paused"

UNFINISHED = (WAITING, STARTING, RUNNING, PAUSED)  # states that may still change


@dataclass(frozen=True)
class RunView:
    """One run as it is now."""

    name: str
    fingerprint: str
    state: str  # waiting, starting, running, paused, finished, failed, interrupted, pruned, not started
    host: str = ""
    progress: progress_file.Progress | None = None
    took_s: float | None = None  # of a finished run
    stopped_at: tuple[int, int] | None = None  # of a finished run that stopped early: its steps, and the planned ones
    other_code: bool = False  # finished by another code version than the sweep's last command has


@dataclass(frozen=True)
class SweepView:
    """A sweep as it is now."""

    title: str
    runs: list[RunView]

    @property
    def under_way(self) -> bool:
        """Whether anything may still change."""
        return any(run.state in UNFINISHED for run in self.runs)

    def summary(self) -> str:
        """``4 runs: 2 finished, 1 running, 1 waiting; about 3 min left``, estimated from its finished runs."""
        states = Counter(run.state for run in self.runs)
        text = f"{len(self.runs)} run{'' if len(self.runs) == 1 else 's'}: " + ", ".join(
            f"{count} {state}" for state, count in states.items()
        )
        if other := sum(run.other_code for run in self.runs):
            text += f" ({other} by other code)"
        took = [run.took_s for run in self.runs if run.took_s is not None]
        if not took or not self.under_way:
            return text
        waiting = states[WAITING] + states[STARTING] + states[PAUSED]
        seconds = waiting * sum(took) / len(took)
        seconds += sum(run.progress.left_s or 0.0 for run in self.runs if run.state == RUNNING and run.progress)
        return f"{text}; about {duration.in_words(seconds / max(states[RUNNING], 1))} left"


def find_sweep(runs_dir: Path, name: str | None, key: str = "sweep.name") -> Path | None:
    """The folder of the sweep or claim of that name, else of the one with the newest command.

    Args:
        key: the setting that holds the name, for messages.

    Returns:
        None if there is no sweep and none was named, but single runs are running.

    Raises:
        ConfigFault: there is no such sweep.
    """
    found = (
        file.parent for kind in ("sweeps", "claims") for file in runs_dir.glob(f"{kind}/*/{manifest.MANIFEST_NAME}")
    )
    folders = sorted(found, key=_age_key)
    if not folders and name is None and _with_progress(runs_dir):
        return None
    if not folders:
        raise ConfigFault(f"runs_dir={runs_dir} holds no sweep, and no run is running; start one, or set runs_dir")
    if name is None:
        return folders[-1]
    names = {folder: _read(folder / manifest.MANIFEST_NAME).get("name") for folder in folders}
    matching = [folder for folder in folders if names[folder] == name]
    matching = matching or [folder for folder in folders if folder.name.startswith(name)]
    if not matching:
        known = "; ".join(f"{names[folder]} ({folder.name})" for folder in folders[-5:])
        raise ConfigFault(f"{key}={name} is not a sweep in {runs_dir}; the newest are: {known}")
    return matching[-1]


def _age_key(folder: Path) -> tuple[str, float]:
    newest = max((command["started"] for command in _commands(folder)), default="")
    return newest, (folder / manifest.MANIFEST_NAME).stat().st_mtime


def view_sweep(runs_dir: Path, folder: Path | None) -> SweepView:
    """The sweep in this folder, one row per plan in the order of its manifest, then other runs that are running.

    Args:
        folder: None: only single runs.
    """
    if folder is None:
        return SweepView(f"single runs in {runs_dir}", _running_besides(runs_dir, ()))
    content, commands = _read(folder / manifest.MANIFEST_NAME), _commands(folder)
    active = [each for each in commands if each["ended"] is None and provenance.alive(each["owner"]) is not False]
    code = commands[-1].get("code", {}).get("version") if commands else None
    first: dict[str, Mapping[str, Any]] = {}
    for cell in content.get("cells", []):
        first.setdefault(cell["fingerprint"], cell)
    shared = shared_overrides([cell["name"] for cell in content.get("cells", [])])
    runs = [_view_run(runs_dir, cell, shared, bool(active), code) for cell in first.values()]
    runs += _running_besides(runs_dir, first)
    return SweepView(f"{content.get('name') or folder.name} ({folder.name}): {_activity(commands, active)}", runs)


def _running_besides(runs_dir: Path, known: Collection[str]) -> list[RunView]:
    """Runs that are running or were killed, and are not among the known ones: single runs, or another sweep's."""
    runs = []
    for fingerprint in _with_progress(runs_dir):
        record = None if fingerprint in known else store.read_record(runs_dir, fingerprint, curve=False)
        if record is not None and record["status"] in ("running", "interrupted"):
            cell = {"fingerprint": fingerprint, "name": "", "method": record["method"]}
            runs.append(_view_run(runs_dir, cell, (), active=False, code=None))
    return runs


def _with_progress(runs_dir: Path) -> list[str]:
    """Fingerprints of runs that write their progress, or were killed before they could remove it."""
    return sorted(file.parent.name for file in runs_dir.glob(f"*/{progress_file.NAME}"))


def _activity(commands: Sequence[Mapping[str, Any]], active: Sequence[Mapping[str, Any]]) -> str:
    if active:
        return "run by " + ", ".join(locks.describe(each["owner"]) for each in active)
    if not commands:
        return "no command on record"
    last = commands[-1]
    if last["ended"] is None:
        return f"its last command, {locks.describe(last['owner'])}, has died"
    return f"ended {last['ended']}" + (f" by {last['outcome']}" if last["outcome"] != manifest.ENDED else "")


def _view_run(
    runs_dir: Path, cell: Mapping[str, Any], shared: Collection[str], active: bool, code: str | None
) -> RunView:
    fingerprint = cell["fingerprint"]
    folder = store.record_path(runs_dir, fingerprint).parent
    name = " ".join(word for word in split_overrides(cell["name"]) if word not in shared) or cell["method"]
    record = store.read_record(runs_dir, fingerprint, curve=False)
    owner = locks.holder(folder)
    held = owner is not None and lock_owners.living(owner) is not False
    if record is not None and record["status"] == "running":
        # A record cannot say that its process on another machine has ended; its lock can.
        state = RUNNING if held or (owner is None and not (folder / "lock").exists()) else "interrupted"
        now = progress_file.read_progress(folder)
        own = now if now and now.owner == record["owner"] else None
        return RunView(name, fingerprint, state, record["owner"]["host"], own)
    if held and owner is not None:
        return RunView(name, fingerprint, STARTING, str(owner.get("host", "")))
    if record is None:
        return RunView(name, fingerprint, WAITING if active else NOT_STARTED)
    if active and is_paused(record):
        return RunView(name, fingerprint, PAUSED, record["owner"]["host"])
    if record["status"] == "interrupted":
        now = progress_file.read_progress(folder)  # where it was when it was killed
        own = now if now and now.owner == record["owner"] else None
        return RunView(name, fingerprint, "interrupted", record["owner"]["host"], own)
    finished = record["status"] == "finished"
    other_code = finished and code is not None and record["code"]["version"] != code
    took = _duration_s(record) if finished else None
    stop = stopped_early(record) if finished else None
    stopped_at = None if stop is None else (stop["step"], stop["steps"])
    return RunView(name, fingerprint, record["status"], record["owner"]["host"], None, took, stopped_at, other_code)


def is_paused(record: Mapping[str, Any]) -> bool:
    """Whether the run waits at a rung of sweep.prune."""
    return record["status"] == "interrupted" and (record["error"] or {}).get("type") == "Paused"


def _duration_s(record: Mapping[str, Any]) -> float:
    return (datetime.fromisoformat(record["finished"]) - datetime.fromisoformat(record["started"])).total_seconds()


def _commands(folder: Path) -> list[dict[str, Any]]:
    """The commands that ran the sweep, by start."""
    contents = [_read(file) for file in folder.glob("commands/*.json")]
    complete = (each for each in contents if {"started", "ended", "owner"} <= each.keys())
    return sorted(complete, key=lambda command: command["started"])


def _read(file: Path) -> dict[str, Any]:
    """The content; {} for a file that cannot be read, so that the view only lacks what it says."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
