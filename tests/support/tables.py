"""Tables as people and programs read them."""

import csv
import io

from rich.console import Console

from harness.report import console
from harness.report.files import to_csv
from harness.report.table import Table


def printed(table: Table, width: int) -> str:
    """What a terminal of that many columns shows."""
    stream = io.StringIO()
    console.to_console(table, Console(file=stream, width=width))
    return stream.getvalue()


def parsed(table: Table) -> list[dict[str, str]]:
    """The rows of the CSV."""
    return list(csv.DictReader(io.StringIO(to_csv(table))))
