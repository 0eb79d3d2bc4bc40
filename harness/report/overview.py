"""The table of a group: one row for each configuration, over its seeds. Every form of a report has these columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.report.cells import NOTHING, TableRow
from harness.report.columns import EVERY_BLOCK, Column, short_count
from harness.report.console import report_console, to_console
from harness.report.model import Configuration, Group, Published, Report, Run
from harness.report.statistics.model import Interval
from harness.report.table import Table
from harness.runtime.terminal import printable
from harness.scoring.catalog import SCORES, Direction, decimals

ROW = "configuration"  # key of a row's configuration

COST_LABELS = {
    "trainable_parameters": "trainable",
    "adapter_bytes": "adapter MiB",
    "train_s": "train s",
    "peak_train_bytes": "peak MiB",
    "tokens_per_s": "tokens/s",
}


@dataclass(frozen=True)
class OverviewColumn(Column):
    """A column with the value that its rows are sorted by."""

    value: Callable[[Configuration], Any] = lambda _: None
    is_score: bool = False

    def text(self, configuration: Configuration) -> str:
        """The cell as people see it."""
        return self.show({ROW: configuration})


def overview_columns(group: Group) -> list[OverviewColumn]:
    """The columns of the group's table; those that would be empty are left out."""
    rows = group.configurations
    columns = [
        _column("number", "#", lambda row: str(row.number), lambda row: row.number, block=EVERY_BLOCK),
        _column("method", "method", lambda row: row.method, lambda row: row.method, is_text=True, block=EVERY_BLOCK),
    ]
    if any(row.setting for row in rows):
        columns.append(
            _column(
                "setting",
                "setting",
                lambda row: row.setting,
                lambda row: row.setting,
                is_text=True,
                folds=True,
                block=EVERY_BLOCK,
            )
        )
    if any(row.learning_rate is not None for row in rows):
        columns.append(_column("learning_rate", "rate", _rate, lambda row: row.learning_rate, dropped=5))
    columns.append(_column("seeds", "seeds", lambda row: str(len(row.seeds)), lambda row: len(row.seeds)))
    columns += [_cost(name, None) for name in group.costs[:1]]
    columns += [_score(name, place) for place, name in enumerate(group.scores)]
    columns += [_cost(name, dropped) for dropped, name in enumerate(group.costs[1:])]
    if any(row.selected or row.marks for row in rows):
        columns.append(_column("remarks", "remarks", remarks, remarks, is_text=True, dropped=6))
    columns.append(_column("runs", "runs", _runs, lambda row: row.runs[0], is_text=True))
    return columns


def overview_table(group: Group) -> Table:
    """The group's table for a console."""
    rows: list[TableRow] = [
        {ROW: row, **{f"{name}_change": row.changes.get(name) for name in group.scores}} for row in group.configurations
    ]
    return Table(rows, list(overview_columns(group)), list(group.scores), list(group.notes))


def score_label(name: str) -> str:
    """Heading of a score, with an arrow towards better values."""
    return SCORES[name].heading if name in SCORES else name


def score_direction(name: str) -> Direction | None:
    """Which way is better; None for a score of other code."""
    return SCORES[name].direction if name in SCORES else None


def interval_text(name: str, interval: Interval | None) -> str:
    """``77.0 ± 1.2``: the mean and half of its interval; without an interval, the mean."""
    if interval is None:
        return NOTHING
    places = decimals(name, abs(interval.mean))
    mean = f"{interval.mean:.{places}f}"
    return mean if interval.half_width is None else f"{mean} ± {interval.half_width:.{places}f}"


def remarks(row: Configuration) -> str:
    """Selection, and how its runs were made differently from most of the group."""
    return "; ".join(part for part in (row.selected, *row.marks) if part)


def _runs(row: Configuration) -> str:
    return row.runs[0] if len(row.runs) == 1 else f"{row.runs[0]} +{len(row.runs) - 1}"


def _rate(row: Configuration) -> str:
    return NOTHING if row.learning_rate is None else f"{row.learning_rate:.4g}"


def cost_text(name: str, value: float | None) -> str:
    """A cost in the unit of its column."""
    if value is None:
        return NOTHING
    if name == "trainable_parameters":
        return short_count(round(value))
    size = value / 2**20 if name.endswith("_bytes") else value
    return f"{size:.4g}" if size < 1000 else f"{size:.0f}"


def _cost(name: str, dropped: int | None) -> OverviewColumn:
    return _column(
        name,
        COST_LABELS[name],
        lambda row: cost_text(name, row.costs[name]),
        lambda row: row.costs[name],
        dropped=dropped,
    )


def _score(name: str, place: int) -> OverviewColumn:
    known = SCORES.get(name)
    return _column(
        name,
        score_label(name),
        lambda row: interval_text(name, row.scores.get(name)),
        lambda row: row.scores[name].mean if name in row.scores else None,
        block="scores" if known is None or known.is_metric else "losses",
        dropped=0 if known is not None and known.repeats else 100 - place,
        direction=score_direction(name),
        is_score=True,
    )


def _column(
    name: str, label: str, text: Callable[[Configuration], str], value: Callable[[Configuration], Any], **more: Any
) -> OverviewColumn:
    return OverviewColumn(name=name, label=label, show=lambda row: text(row[ROW]), value=value, **more)


def failure_text(run: Run) -> str:
    """What has no result, and why."""
    what = " ".join(part for part in (run.method, run.setting) if part)
    cells = f" ({'; '.join(run.cells)})" if run.cells and not run.setting else ""
    why = " - ".join(text for text in (run.error, run.hint) if text)
    return f"{run.fingerprint} {what}{cells}, seed {run.seed}: {run.state}{': ' if why else ''}{why}"


def shares_best(group: Group, name: str) -> frozenset[str]:
    """Keys of the configurations whose mean cannot be told from the best one's: their difference is within the floor.

    Empty if no floor is known, because then nobody knows whether the best is best.
    """
    direction = score_direction(name)
    rows: Sequence[Configuration] = [row for row in group.configurations if name in row.scores]
    if direction is None or len(rows) < 2:
        return frozenset()
    sign = 1.0 if direction == "maximize" else -1.0
    best = max(rows, key=lambda row: sign * row.scores[name].mean)
    if name not in best.floors:
        return frozenset()
    top = best.scores[name].mean
    return frozenset(
        row.key for row in rows if abs(top - row.scores[name].mean) <= max(best.floors[name], row.floors.get(name, 0.0))
    )


PUBLISHED_HEADER = (("method", True), ("experiment", True), ("rate", False), ("seed", False))


def published_table(rows: Sequence[Published]) -> tuple[list[tuple[str, bool]], list[list[str]]]:
    """Headings, each with whether its column is text, and the cells."""
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    known = [name for name in COST_LABELS if any(row.costs.get(name) is not None for row in rows)]
    header = [*PUBLISHED_HEADER, *((score_label(name), False) for name in scores)]
    header += [*((COST_LABELS[name], False) for name in known), ("confounds", True)]
    return header, [_published_cells(row, scores, known) for row in rows]


def _published_cells(row: Published, scores: Sequence[str], known: Sequence[str]) -> list[str]:
    rate = NOTHING if row.learning_rate is None else f"{row.learning_rate:.4g}"
    shown = [
        f"{row.scores[name]:.{decimals(name, abs(row.scores[name]))}f}" if name in row.scores else NOTHING
        for name in scores
    ]
    taken = [cost_text(name, row.costs.get(name)) for name in known]
    return [row.method, row.experiment, rate, str(row.seed), *shown, *taken, "; ".join(row.confounds)]


def published_caption(rows: Sequence[Published]) -> str:
    """Where the rows come from, and what they are not."""
    sources = " and ".join(dict.fromkeys(row.source for row in rows))
    return f"Published results ({sources}), imported; in no comparison and no finding"


def _print_published(group: Group, console: Console) -> None:
    from harness.report.plain_table import plain_table

    header, rows = published_table(group.published)
    title = published_caption(group.published)
    table = plain_table(title if group.runs else f"{group.title}: {title}")
    for label, is_text in header:
        table.add_column(label, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell, one_line=True)) for cell in row))
    console.print(table)


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the table and the findings of each group."""
    console = console or report_console()
    for group in report.groups:
        facts = ", ".join(f"{fact.name} {fact.value}" for fact in group.facts)
        if group.runs:
            to_console(overview_table(group), console, title=f"{group.title}{': ' if facts else ''}{facts}")
        if group.published:
            _print_published(group, console)
        for shape in report.shapes:
            if shape.group == group.key:
                console.print(Text(printable(shape.sentence), style="bold"))
                for each in shape.rules:
                    console.print(Text(printable(f"- {each.rule}: {each.verdict} [{each.measured}; {each.test}]")))
        for finding in report.headlines:
            if finding.group == group.key:
                console.print(Text(f"- {printable(finding.text)}"))
    for run in report.failures:
        console.print(Text(printable(failure_text(run)), style="bold red"))
    for note in report.notes:
        console.print(Text(printable(note), style="dim"))
