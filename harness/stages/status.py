"""stage=status: the progress of a sweep, seen from another terminal. Reads files; imports no torch."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.estimate import duration
from harness.report.cells import NOT_STARTED
from harness.report.console import GAP, WIDTH_WITHOUT_TERMINAL, report_console
from harness.report.plain_table import plain_table
from harness.runtime.terminal import printable
from harness.stages.claims_view import claims_table, view_claims
from harness.stages.sweep_view import RUNNING, STARTING, WAITING, RunView, SweepView, find_sweep, view_sweep

REDRAW_S = 1.0

FRAME = 8  # lines of the view that are not rows: a title of two lines, rules, a summary, and the prompt

SHOWN_FIRST = (RUNNING, STARTING, "failed", "interrupted", WAITING)  # if there is no room for all

STYLES = {
    "finished": "green",
    "failed": "bold red",
    "interrupted": "bold red",
    "pruned": "dim",
    NOT_STARTED: "dim",
    WAITING: "dim",
}


def show_status(runs_dir: Path, name: str | None, watch: bool | None) -> None:
    """Print a sweep's runs and single runs that are running; with ``watch``, redraw until all have ended or Ctrl-C.

    Without a name, the claims of the folder follow.

    Args:
        name: of the sweep or claim, or the first characters of its folder's name; None: the newest.
        watch: None: if the output is a terminal.

    Raises:
        ConfigFault: there is no such sweep, and no single run is running.
    """
    folder = find_sweep(runs_dir, name)
    console = report_console()
    if not (sys.stdout.isatty() if watch is None else watch):
        console.print(render(view_sweep(runs_dir, folder), width=console.width))
        _print_claims(console, runs_dir, name)
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                view = view_sweep(runs_dir, folder)
                live.update(render(view, max(console.height - FRAME, 1), console.width), refresh=True)
                if not view.under_way:
                    break
                time.sleep(REDRAW_S)
        except KeyboardInterrupt:
            pass  # ends only the view; the sweep continues
    _print_claims(console, runs_dir, name)


def _print_claims(console: Console, runs_dir: Path, name: str | None) -> None:
    claims = view_claims(runs_dir) if name is None else []
    if claims:
        console.print()
        console.print(claims_table(claims))


# Columns by what they show of a run; those that do not fit are left out, the last of these first.
COLUMNS = ("run", "state", "step", "setting", "time left", "loss", "tokens/s", "host")
ORDER = ("run", "state", "step", "loss", "tokens/s", "time left", "host", "setting")
ON_THE_RIGHT = ("step", "loss", "tokens/s", "time left")


def render(view: SweepView, room: int | None = None, width: int = WIDTH_WITHOUT_TERMINAL) -> Table:
    """The view for a console: states, steps, figures and time left.

    Args:
        room: show at most so many rows, those that are running first.
        width: of the console; columns that do not fit are left out, and no word is broken.
    """
    runs, caption = view.runs, view.summary()
    if room is not None and len(runs) > room:
        rank = {state: number for number, state in enumerate(SHOWN_FIRST)}
        runs = sorted(runs, key=lambda run: rank.get(run.state, len(rank)))[:room]
        caption += f"; {len(view.runs) - room} of them do not fit here"
    cells = [_cells(run) for run in runs]
    shown = _fitting(cells, width)
    if left_out := [name for name in ORDER if name not in shown and any(row[name] for row in cells)]:
        caption += f"; not shown at this width: {', '.join(left_out)}"
    table = plain_table(view.title, caption)
    for column in shown:
        right = column in ON_THE_RIGHT
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "setting", overflow="fold")
    for run, texts in zip(runs, cells, strict=True):
        style = {"state": STYLES.get(run.state, "")}
        table.add_row(*(Text(texts[column], style=style.get(column, "")) for column in shown))
    return table


def _cells(run: RunView) -> dict[str, str]:
    now = run.progress
    return {
        "run": run.fingerprint,
        "state": _state(run),
        "step": _stop(run) if now is None or now.step is None else f"{now.step}/{now.steps or '?'}",
        "loss": "" if now is None or now.loss is None else f"{now.loss:.3f}",
        "tokens/s": "" if now is None or now.tokens_per_s is None else f"{now.tokens_per_s:.0f}",
        "time left": _time(run),
        "host": printable(run.host, one_line=True),
        "setting": printable(run.name, one_line=True),
    }


def _fitting(cells: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """The columns that fit; settings may break between words."""
    needed = {
        name: max(cell_len(part) for row in ({name: name}, *cells) for part in (_words(row[name], name) or [""]))
        for name in ORDER
    }
    shown = [name for name in ORDER if any(row[name] for row in cells) or name in COLUMNS[:3]]
    for name in reversed(COLUMNS[2:]):
        if sum(needed[each] + GAP for each in shown) - GAP <= width:
            break
        if name in shown:
            shown.remove(name)
    return shown


def _words(text: str, column: str) -> list[str]:
    return text.split() if column == "setting" else [text]


def _stop(run: RunView) -> str:
    return "" if run.stopped_at is None else f"{run.stopped_at[0]}/{run.stopped_at[1]}"


def _state(run: RunView) -> str:
    if run.other_code:
        return f"{run.state} (other code)"
    if run.stopped_at is not None:
        return f"{run.state} (stopped early)"
    return f"{run.state}: {run.progress.state}" if run.progress and run.state == RUNNING else run.state


def _time(run: RunView) -> str:
    if run.state == RUNNING and run.progress and run.progress.left_s is not None:
        return duration.in_words(run.progress.left_s)
    return f"took {duration.in_words(run.took_s)}" if run.took_s is not None else ""
