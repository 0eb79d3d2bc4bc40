"""A small table on the console, in the style of the report's: no lines, bold headings, two spaces between columns."""

from typing import TYPE_CHECKING

from rich.text import Text

from harness.report.console import GAP
from harness.runtime.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table


def plain_table(title: str, caption: str = "") -> "Table":
    """A table without columns yet; words are never broken unless a column says so."""
    from rich.table import Table

    return Table(
        title=Text(printable(title), style="bold"),
        title_justify="left",
        caption=Text(printable(caption)) if caption else None,
        caption_justify="left",
        box=None,
        padding=(0, GAP, 0, 0),
        pad_edge=False,
        header_style="bold",
    )
