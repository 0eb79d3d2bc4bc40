"""How far a sweep has come, seen from another terminal: ``python -m harness stage=status``. Reads files; no torch."""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import ConfigFault
from harness.estimate import duration
from harness.record import locks, progress, provenance, store
from harness.report.cells import NOT_STARTED, shared_overrides, split_overrides
from harness.report.console import WIDTH_WITHOUT_TERMINAL
from harness.sweep import manifest

log = logging.getLogger(__name__)


REDRAW_S = 1.0


FRAME = 8  # lines of the view that are not rows: a title of two lines, rules, a summary, and the prompt


WAITING, STARTING, RUNNING = "waiting", "starting", "running"


UNDER_WAY = (WAITING, STARTING, RUNNING)


FIRST_SHOWN = (RUNNING, STARTING, "failed", "interrupted", WAITING)  # where there is no room for all


STYLES = {
    "finished": "green",
    "failed": "bold red",
    "interrupted": "bold red",
    NOT_STARTED: "dim",
    WAITING: "dim",
}


@dataclass(frozen=True)
class StatusRow:
    """One run as it is now."""

    name: str
    fingerprint: str
    state: str  # waiting, starting, running, finished, failed, interrupted, not started
    host: str = ""
    told: progress.Progress | None = None
    took_s: float | None = None  # of a finished run


@dataclass(frozen=True)
class View:
    """A sweep as it is now."""

    title: str
    rows: list[StatusRow]

    @property
    def under_way(self) -> bool:
        """Whether anything may still change."""
        return any(row.state in UNDER_WAY for row in self.rows)


def show_status(runs_dir: Path, name: str | None, watch: bool | None) -> None:
    """Print a sweep's runs, and single ones under way; where ``watch``, anew until all is over or Ctrl-C.

    Args:
        name: of the sweep, or the first characters of its folder's; null: the newest.
        watch: null: where the output is a terminal.

    Raises:
        ConfigFault: there is no such sweep, and no single run under way.
    """
    folder = find(runs_dir, name)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_WITHOUT_TERMINAL)
    if not (sys.stdout.isatty() if watch is None else watch):
        console.print(render(look(runs_dir, folder)))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                view = look(runs_dir, folder)
                live.update(render(view, max(console.height - FRAME, 1)), refresh=True)
                if not view.under_way:
                    return
                time.sleep(REDRAW_S)
        except KeyboardInterrupt:
            return  # ends the looking, which is what was asked for; the sweep goes on


def find(runs_dir: Path, name: str | None) -> Path | None:
    """Folder of the sweep of that name, else of the one whose last command is the newest.

    Returns:
        None where there is no sweep, and none was asked for, but single runs are under way.

    Raises:
        ConfigFault: there is none.
    """
    found = sorted((file.parent for file in runs_dir.glob(f"sweeps/*/{manifest.MANIFEST_NAME}")), key=_begun)
    if not found and name is None and _telling(runs_dir):
        return None
    if not found:
        raise ConfigFault(f"runs_dir={runs_dir} holds no sweep and no run under way; start one, or set runs_dir")
    if name is None:
        return found[-1]
    named = [folder for folder in found if _read(folder / manifest.MANIFEST_NAME).get("name") == name]
    named = named or [folder for folder in found if folder.name.startswith(name)]
    if not named:
        known = "; ".join(
            f"{_read(folder / manifest.MANIFEST_NAME).get('name')} ({folder.name})" for folder in found[-5:]
        )
        raise ConfigFault(f"sweep.name={name} is no sweep in {runs_dir}; the newest are: {known}")
    return named[-1]


def _begun(folder: Path) -> tuple[str, float]:
    commands = _commands(folder)
    return max((each["started"] for each in commands), default=""), (folder / manifest.MANIFEST_NAME).stat().st_mtime


def look(runs_dir: Path, folder: Path | None) -> View:
    """The sweep in this folder, one row a plan, in the order of its list; then runs under way that are not of it."""
    if folder is None:
        return View(f"single runs in {runs_dir}", _others(runs_dir, ()))
    content = _read(folder / manifest.MANIFEST_NAME)
    commands = _commands(folder)
    working = [each for each in commands if each["ended"] is None and provenance.alive(each["owner"]) is not False]
    first: dict[str, Mapping[str, Any]] = {}
    for cell in content.get("cells", []):
        first.setdefault(cell["fingerprint"], cell)
    shared = shared_overrides([cell["name"] for cell in content.get("cells", [])])
    rows = [_row(runs_dir, cell, shared, bool(working)) for cell in first.values()]
    rows += _others(runs_dir, first)
    return View(f"{content.get('name') or folder.name} ({folder.name}): {_at_work(commands, working)}", rows)


def _others(runs_dir: Path, known: Collection[str]) -> list[StatusRow]:
    """Runs that tell their progress and are not among the known ones: single runs, or another sweep's."""
    rows = []
    for fingerprint in _telling(runs_dir):
        kept = None if fingerprint in known else store.read_record(runs_dir, fingerprint, curve=False)
        if kept is not None and kept["status"] == "running":
            cell = {"fingerprint": fingerprint, "name": "", "method": kept["method"]}
            rows.append(_row(runs_dir, cell, (), worked_on=False))
    return rows


def _telling(runs_dir: Path) -> list[str]:
    return sorted(file.parent.name for file in runs_dir.glob(f"*/{progress.NAME}"))


def _at_work(commands: Sequence[Mapping[str, Any]], working: Sequence[Mapping[str, Any]]) -> str:
    if working:
        return "worked on by " + ", ".join(locks.describe(each["owner"]) for each in working)
    if not commands:
        return "no command on record"
    last = commands[-1]
    if last["ended"] is None:
        return f"its last command, {locks.describe(last['owner'])}, has died"
    return f"ended {last['ended']}" + (f" by {last['outcome']}" if last["outcome"] != manifest.ENDED else "")


def _row(runs_dir: Path, cell: Mapping[str, Any], shared: Collection[str], worked_on: bool) -> StatusRow:
    fingerprint = cell["fingerprint"]
    place = store.record_path(runs_dir, fingerprint).parent
    name = " ".join(word for word in split_overrides(cell["name"]) if word not in shared) or cell["method"]
    kept = store.read_record(runs_dir, fingerprint, curve=False)
    owner = locks.holder(place)
    held = owner is not None and locks.living(owner) is not False
    if kept is not None and kept["status"] == "running":
        # A record cannot say that its process on another machine has ended; its lock can.
        state = RUNNING if held or (owner is None and not (place / "lock").exists()) else "interrupted"
        told = progress.read_progress(place)
        ours = told if told and told.owner == kept["owner"] else None
        return StatusRow(name, fingerprint, state, kept["owner"]["host"], ours)
    if held and owner is not None:
        return StatusRow(name, fingerprint, STARTING, str(owner.get("host", "")))
    if kept is None:
        return StatusRow(name, fingerprint, WAITING if worked_on else NOT_STARTED)
    return StatusRow(name, fingerprint, kept["status"], kept["owner"]["host"], took_s=_took(kept))


def _took(kept: Mapping[str, Any]) -> float | None:
    if kept["status"] != "finished":
        return None
    return (datetime.fromisoformat(kept["finished"]) - datetime.fromisoformat(kept["started"])).total_seconds()


def render(view: View, room: int | None = None) -> Table:
    """The view for a console: states, steps, figures and time left; at most ``room`` rows, the liveliest."""
    rows, caption = view.rows, summary(view.rows)
    if room is not None and len(rows) > room:
        rank = {state: number for number, state in enumerate(FIRST_SHOWN)}
        rows = sorted(rows, key=lambda row: rank.get(row.state, len(rank)))[:room]
        caption += f"; {len(view.rows) - room} of them have no room here"
    table = Table(title=Text(view.title), title_justify="left", caption=Text(caption), caption_justify="left")
    for column in ("run", "state", "step", "loss", "tokens/s", "time left", "host", "setting"):
        right = column in ("step", "loss", "tokens/s", "time left")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "setting", overflow="fold")
    for row in rows:
        told = row.told
        state = f"{row.state}: {told.state}" if told and row.state == RUNNING else row.state
        step = "" if told is None or told.step is None else f"{told.step}/{told.steps or '?'}"
        table.add_row(
            Text(row.fingerprint),
            Text(state, style=STYLES.get(row.state, "")),
            step,
            "" if told is None or told.loss is None else f"{told.loss:.3f}",
            "" if told is None or told.tokens_per_s is None else f"{told.tokens_per_s:.0f}",
            _left(row),
            Text(row.host),
            Text(row.name),
        )
    return table


def _left(row: StatusRow) -> str:
    if row.state == RUNNING and row.told and row.told.left_s is not None:
        return duration.in_words(row.told.left_s)
    return f"took {duration.in_words(row.took_s)}" if row.took_s is not None else ""


def summary(rows: Sequence[StatusRow]) -> str:
    """``4 runs: 2 finished, 1 running, 1 waiting; about 3 min left``, judged by this sweep's finished runs."""
    states = Counter(row.state for row in rows)
    text = f"{len(rows)} run{'' if len(rows) == 1 else 's'}: " + ", ".join(
        f"{count} {state}" for state, count in states.items()
    )
    took = [row.took_s for row in rows if row.took_s is not None]
    waiting = states[WAITING] + states[STARTING]
    if not took or not any(states[state] for state in UNDER_WAY):
        return text
    usual = sum(took) / len(took)
    running = [row.told.left_s or 0.0 for row in rows if row.state == RUNNING and row.told]
    return f"{text}; about {duration.in_words((waiting * usual + sum(running)) / max(states[RUNNING], 1))} left"


def _commands(folder: Path) -> list[dict[str, Any]]:
    """The commands that worked on the sweep, by start."""
    found = [_read(file) for file in folder.glob("commands/*.json")]
    return sorted((each for each in found if {"started", "ended", "owner"} <= each.keys()), key=lambda c: c["started"])


def _read(file: Path) -> dict[str, Any]:
    """The content; {} for a file that cannot be read, which costs its line in the view and no more."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
