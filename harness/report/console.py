"""A table of results on the console, in as many blocks as the terminal is narrow."""

import os
import sys
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from harness.report.cells import NOT_STARTED, TableRow
from harness.report.table import DROPPED_FIRST, EVERY, GAP, WIDTH_WITHOUT_TERMINAL, Column, Table
from harness.scoring.catalog import LOWER_IS_BETTER


def to_console(table: Table, console: Console | None = None, title: str | None = None) -> None:
    """Print the table; where the terminal is narrow, in up to three blocks: costs, scores, losses.

    Columns that find no room in their block are left out by importance, and named. Numbers are never cut:
    where not even the indispensable columns fit, the lines are longer than the terminal is wide.
    """
    console = console or _console()
    if title is not None:
        console.print(Text(f"\n{title}", style="bold"))
    blocks, left_out = _layout(table, console.width)
    for number, block in enumerate(blocks):
        if number:
            console.print()
        console.print(Segments(_segments(table, block, console, again=number > 0)), soft_wrap=True, end="")
    notes = list(table.notes)
    if left_out:
        notes.append(f"left out at this width: {', '.join(left_out)}; table.csv and table.md have them")
    for note in notes:
        console.print(Text(note, style="dim"))


def _segments(table: Table, columns: Sequence[Column], console: Console, again: bool) -> list[Segment]:
    """The lines of one block; ``again``: settings stand whole in an earlier one, and a line of each is enough.

    Rich's own table takes half a minute for ten thousand rows, and may cut numbers.
    """
    widths = {column.name: _narrowest(table, column) for column in columns}
    spare = console.width - sum(widths.values()) - GAP * (len(columns) - 1)
    widths["setting"] = min(widths["setting"] + max(spare, 0), _natural(table, next(c for c in columns if c.folds)))
    segments = []
    for row in (None, *table.rows):
        parts = []
        for column in columns:
            text = column.show(row) if row else column.label
            too_long = column.folds and cell_len(text) > widths[column.name]
            lines = Text(text).wrap(console, widths[column.name], overflow="fold") if too_long else [text]
            if again and len(lines) > 1:
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


def _console() -> Console:
    unknown = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH_WITHOUT_TERMINAL) if unknown else Console()


def _style(column: Column, row: TableRow) -> str:
    """Colour repeats what sign and arrow say; it is never the only sign."""
    if column.name == "state":
        return {"finished": "", "running": "", "not run": "dim", NOT_STARTED: "dim"}.get(row["state"], "bold red")
    change = row.get(f"{column.name}_change")
    shares = row.get("shares_row")
    if shares or not change:
        return "dim" if shares else ""
    return "green" if (change < 0) == (column.name in LOWER_IS_BETTER) else "red"


def _natural(table: Table, column: Column) -> int:
    return max(cell_len(text) for text in (column.label, *(column.show(row) for row in table.rows)))


def _narrowest(table: Table, column: Column) -> int:
    """Settings may fold, down to 16 columns; everything else needs its longest cell."""
    natural = _natural(table, column)
    return min(natural, 16) if column.folds else natural


def _layout(table: Table, width: int) -> tuple[list[list[Column]], list[str]]:
    """Columns of each block, and the labels of those left out. Blocks that fit side by side are one."""
    widths = {column.name: _narrowest(table, column) + GAP for column in table.columns}

    def needed(columns: Sequence[Column]) -> int:
        return sum(widths[column.name] for column in columns) - GAP

    every = [column for column in table.columns if column.block == EVERY]
    blocks: list[list[Column]] = []
    left_out = []
    for name in dict.fromkeys(column.block for column in table.columns if column.block != EVERY):
        group = [column for column in table.columns if column.block == name]
        if blocks and needed(blocks[-1] + group) <= width:
            blocks[-1] += group
            continue
        ranked = ((_rank(column.name, table.scores), column) for column in group)
        droppable = sorted(((rank, column) for rank, column in ranked if rank is not None), key=lambda pair: pair[0])
        while droppable and needed(every + group) > width:
            _, dropped = droppable.pop(0)
            group.remove(dropped)
            left_out.append(dropped.label)
        if group:
            blocks.append(every + group)
    return blocks, left_out


def _rank(name: str, scores: Sequence[str]) -> int | None:
    """Place among those dropped first; None for a column that always stays."""
    if name in DROPPED_FIRST:
        return DROPPED_FIRST.index(name)
    return DROPPED_FIRST.index("?") if name in scores else None
