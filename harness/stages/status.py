"""stage=status: the progress of a sweep, seen from another terminal. Reads files; imports no torch."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.estimate import duration
from harness.report.cells import NOT_STARTED
from harness.report.console import WIDTH_WITHOUT_TERMINAL
from harness.runtime.terminal import printable
from harness.stages.sweep_view import RUNNING, STARTING, WAITING, RunView, SweepView, find_sweep, view_sweep

REDRAW_S = 1.0

FRAME = 8  # lines of the view that are not rows: a title of two lines, rules, a summary, and the prompt

SHOWN_FIRST = (RUNNING, STARTING, "failed", "interrupted", WAITING)  # if there is no room for all

STYLES = {
    "finished": "green",
    "failed": "bold red",
    "interrupted": "bold red",
    NOT_STARTED: "dim",
    WAITING: "dim",
}


def show_status(runs_dir: Path, name: str | None, watch: bool | None) -> None:
    """Print a sweep's runs and single runs that are running; with ``watch``, redraw until all have ended or Ctrl-C.

    Args:
        name: of the sweep, or the first characters of its folder's name; None: the newest.
        watch: None: if the output is a terminal.

    Raises:
        ConfigFault: there is no such sweep, and no single run is running.
    """
    folder = find_sweep(runs_dir, name)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_WITHOUT_TERMINAL)
    if not (sys.stdout.isatty() if watch is None else watch):
        console.print(render(view_sweep(runs_dir, folder)))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                view = view_sweep(runs_dir, folder)
                live.update(render(view, max(console.height - FRAME, 1)), refresh=True)
                if not view.under_way:
                    return
                time.sleep(REDRAW_S)
        except KeyboardInterrupt:
            return  # ends only the view; the sweep continues


def render(view: SweepView, room: int | None = None) -> Table:
    """The view for a console: states, steps, figures and time left.

    Args:
        room: show at most so many rows, those that are running first.
    """
    runs, caption = view.runs, view.summary()
    if room is not None and len(runs) > room:
        rank = {state: number for number, state in enumerate(SHOWN_FIRST)}
        runs = sorted(runs, key=lambda run: rank.get(run.state, len(rank)))[:room]
        caption += f"; {len(view.runs) - room} of them do not fit here"
    table = Table(
        title=Text(printable(view.title)), title_justify="left", caption=Text(caption), caption_justify="left"
    )
    for column in ("run", "state", "step", "loss", "tokens/s", "time left", "host", "setting"):
        right = column in ("step", "loss", "tokens/s", "time left")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "setting", overflow="fold")
    for run in runs:
        now = run.progress
        table.add_row(
            Text(run.fingerprint),
            Text(_state(run), style=STYLES.get(run.state, "")),
            "" if now is None or now.step is None else f"{now.step}/{now.steps or '?'}",
            "" if now is None or now.loss is None else f"{now.loss:.3f}",
            "" if now is None or now.tokens_per_s is None else f"{now.tokens_per_s:.0f}",
            _time(run),
            Text(printable(run.host, one_line=True)),
            Text(printable(run.name, one_line=True)),
        )
    return table


def _state(run: RunView) -> str:
    if run.other_code:
        return f"{run.state} (other code)"
    return f"{run.state}: {run.progress.state}" if run.progress and run.state == RUNNING else run.state


def _time(run: RunView) -> str:
    if run.state == RUNNING and run.progress and run.progress.left_s is not None:
        return duration.in_words(run.progress.left_s)
    return f"took {duration.in_words(run.took_s)}" if run.took_s is not None else ""
