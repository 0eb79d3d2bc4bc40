"""stage=diff: what differs between two runs."""

import json
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.plan.spec import Options
from harness.record.redact import redactor
from harness.report.choose import FoundRun, choose_runs, read_runs
from harness.report.console import report_console
from harness.report.difference import curve_points, differences, direction_of
from harness.report.plain_table import plain_table
from harness.runtime.terminal import printable


def show_difference(options: Options) -> None:
    """Print what differs between the two runs of ``diff.runs``: settings, code, data, costs, scores and curves.

    Raises:
        ConfigFault: they are not two runs of ``runs_dir`` (or of ``report.runs_dirs``).
    """
    one, other = two_runs(options)
    console, redact = report_console(), redactor()
    names = [f"{run.fingerprint} ({run.record['method']})" for run in (one, other)]
    found = differences(one.record, other.record)
    if not found:
        console.print("no difference")
    for section in dict.fromkeys(each.section for each in found):
        table = plain_table(section)
        for title, right in (("", False), (names[0], True), (names[1], True), ("change", True)):
            table.add_column(title, justify="right" if right else "left", overflow="fold", no_wrap=not right)
        for each in found:
            if each.section == section:
                cells = (each.name + direction_of(each.name), each.one, each.other, each.change)
                table.add_row(*(Text(printable(redact(cell), one_line=True)) for cell in cells))
        console.print(table)
        console.print()
    _show_curves(one, other, names, console)
    _show_answers(one, other, console)


def two_runs(options: Options) -> tuple[FoundRun, FoundRun]:
    """The runs of ``diff.runs``, in that order."""
    settings = options.report.runs_dirs
    named = [settings] if isinstance(settings, str) else settings
    folders = [Path(each).expanduser().absolute() for each in named] if named else [options.runs_dir]
    runs = read_runs(folders, "report.runs_dirs" if named else "runs_dir")
    one, other = (choose_runs(runs, [name], key="diff.runs")[0] for name in options.diff.runs)
    return one, other


def _show_curves(one: FoundRun, other: FoundRun, names: list[str], console: Console) -> None:
    points = curve_points(one.record, other.record)
    if not points or all(here == there for _, here, there in points):
        return
    table = plain_table("validation loss")
    for title in ("step", *names, "change"):
        table.add_column(title, justify="right")
    for step, here, there in points:
        change = "" if here is None or there is None else f"{there - here:+.4g}"
        table.add_row(str(step), *("-" if value is None else f"{value:.4g}" for value in (here, there)), change)
    console.print(table)
    console.print()


def _show_answers(one: FoundRun, other: FoundRun, console: Console) -> None:
    """How many of the answers after training differ, if both have scored the same prompts."""
    answers = []
    for run in (one, other):
        file = run.folder / str(run.record["predictions"])
        if not run.record["predictions"] or not file.is_file():
            return
        with open(file, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        answers.append([(row["prompt"], row["after"]) for row in rows])
    pairs = list(zip_longest(*answers, fillvalue=("", "")))
    if any(here[0] != there[0] for here, there in pairs):
        console.print("the two runs answered different prompts")
        return
    console.print(f"{sum(here != there for here, there in pairs)} of {len(pairs)} answers differ")
