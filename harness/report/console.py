"""A table on the console: on one line per row if the terminal is wide, else in blocks of columns."""

import os
import sys
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from harness.report.cells import NOT_STARTED, TableRow
from harness.report.columns import BLOCKS, EVERY_BLOCK, Column
from harness.report.table import Table
from harness.runtime.terminal import printable

WIDTH_WITHOUT_TERMINAL = 140  # characters, if the output is a file or a pipe
GAP = 2  # characters between columns
NARROWEST_FOLD = 16  # characters
LONGEST_WORD = 32  # characters, with which a line still fits 80 columns; longer ones, such as paths, may break


def to_console(table: Table, console: Console | None = None, title: str | None = None) -> None:
    """Print the table; if the terminal is narrow, in up to three blocks: costs, scores, losses.

    Columns that do not fit into their block are left out, the least important first, and named. Numbers are never cut:
    if even the columns that are always shown do not fit, lines are longer than the terminal is wide.
    """
    console = console or report_console()
    if title is not None:
        console.print(Text(f"\n{printable(title)}", style="bold"))
    blocks, left_out = _layout(table, console.width)
    for number, block in enumerate(blocks):
        if number:
            console.print()
        console.print(Segments(_segments(table, block, console, shorten=number > 0)), soft_wrap=True, end="")
    notes = list(table.notes)
    if left_out:
        notes.append(f"columns left out at this width: {', '.join(left_out)}; see runs.csv of the report")
    for note in notes:
        console.print(Text(printable(note), style="dim"))


def _segments(table: Table, columns: Sequence[Column], console: Console, shorten: bool) -> list[Segment]:
    """The lines of one block; ``shorten``: an earlier block shows the settings whole, so one line of each is enough.

    Not rich's own table, which takes half a minute for ten thousand rows and may cut numbers.
    """
    widths = {column.name: _narrowest(table, column) for column in columns}
    spare = console.width - sum(widths.values()) - GAP * (len(columns) - 1)
    for column in [column for column in columns if column.folds][:1]:
        widths[column.name] = min(widths[column.name] + max(spare, 0), _natural(table, column))
    segments = []
    for row in (None, *table.rows):
        parts = []
        for column in columns:
            text = printable(column.show(row) if row else column.label, one_line=True)
            too_long = column.folds and cell_len(text) > widths[column.name]
            lines = Text(text).wrap(console, widths[column.name], overflow="fold") if too_long else [text]
            if shorten and len(lines) > 1:
                lines = [set_cell_size(text, widths[column.name] - 1) + "…"]
            parts.append([str(line).rstrip() for line in lines])
        for number in range(max(map(len, parts))):
            for column, lines in zip(columns, parts, strict=True):
                piece = lines[number] if number < len(lines) else ""
                blank = " " * (widths[column.name] - cell_len(piece))
                padded = piece + blank if column.is_text else blank + piece
                style = _style(column, row) if row else "bold"
                segments.append(Segment(padded, console.get_style(style)))
                segments.append(Segment(" " * GAP if column is not columns[-1] else "\n"))
    return segments


def report_console() -> Console:
    """The console of a table; wide if the output is a file or a pipe."""
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH_WITHOUT_TERMINAL) if unknown else Console()


def _style(column: Column, row: TableRow) -> str:
    """Color repeats what sign and arrow say, for readers who cannot see it."""
    if column.name == "state":
        return {"finished": "", "running": "", "not run": "dim", NOT_STARTED: "dim"}.get(row["state"], "bold red")
    change = row.get(f"{column.name}_change")
    shares = row.get("shares_row")
    if shares or not change or column.direction is None:
        return "dim" if shares else ""
    return "green" if (change < 0) == (column.direction == "minimize") else "red"


def _natural(table: Table, column: Column) -> int:
    return max(cell_len(text) for text in (column.label, *(column.show(row) for row in table.rows)))


def _narrowest(table: Table, column: Column) -> int:
    """Settings may fold between words; all other columns need the width of their longest cell."""
    natural = _natural(table, column)
    if not column.folds:
        return natural
    words = [word for row in table.rows for word in column.show(row).split()]
    longest = max((cell_len(word) for word in words), default=0)
    return min(natural, max(NARROWEST_FOLD, min(longest, LONGEST_WORD)))


def _layout(table: Table, width: int) -> tuple[list[list[Column]], list[str]]:
    """The columns of each block, and the labels of those left out. Blocks that fit side by side are joined."""
    widths = {column.name: _narrowest(table, column) + GAP for column in table.columns}

    def needed(columns: Sequence[Column]) -> int:
        return sum(widths[column.name] for column in columns) - GAP

    every = [column for column in table.columns if column.block == EVERY_BLOCK]
    blocks: list[list[Column]] = []
    left_out = []
    names = dict.fromkeys(column.block for column in table.columns if column.block != EVERY_BLOCK)
    for name in sorted(names, key=lambda name: BLOCKS.index(name) if name in BLOCKS else len(BLOCKS)):
        group = [column for column in table.columns if column.block == name]
        if blocks and needed(blocks[-1] + group) <= width:
            blocks[-1] += group
            continue
        ranked = [(column.dropped, column) for column in group if column.dropped is not None]
        droppable = [column for _, column in sorted(ranked, key=lambda pair: pair[0])]
        while droppable and needed(every + group) > width:
            dropped = droppable.pop(0)
            group.remove(dropped)
            left_out.append(dropped.label)
        if group:
            blocks.append(every + group)
    return blocks, left_out
