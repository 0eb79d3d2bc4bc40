"""Tables as people and programs read them."""

import io

from rich.console import Console

from harness.report import console
from harness.report.table import Table


def printed(table: Table, width: int) -> str:
    """What a terminal of that many columns shows."""
    stream = io.StringIO()
    console.to_console(table, Console(file=stream, width=width))
    return stream.getvalue()


def parsed(table: Table) -> list[dict[str, str]]:
    """The raw values as texts; what is unknown is empty."""
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.rows]
