"""Tables as CSV and Markdown files."""

import csv
import io
import re
from collections import Counter
from pathlib import Path

from harness.record.files import atomic_write_text
from harness.report.columns import state_of
from harness.report.table import Table


def to_csv(table: Table) -> str:
    """Raw values under ``Table.rows``' keys, empty if unknown.

    Units are in the names; times are seconds, shares 0..1, scores in the unit of the catalog (losses nats per token,
    metrics percent); ``_change`` is after minus before.
    """
    stream = io.StringIO()
    names = list(table.rows[0]) if table.rows else ["row"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """All columns as on a wide console, and the notes as a list."""
    lines = [[_escaped(column.label) for column in table.columns]]
    lines.append(["---" if column.is_text else "--:" for column in table.columns])
    lines += [[_escaped(column.show(row)) for column in table.columns] for row in table.rows]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return text + "".join(f"{'' if number else chr(10)}- {_escaped(note)}\n" for number, note in enumerate(table.notes))


def _escaped(text: str) -> str:
    """Text that Markdown shows unchanged: an error message or a setting is data, not markup or HTML."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_tables(folder: str | Path, table: Table, over_seeds: Table | None = None) -> None:
    """Write ``table.csv`` and ``table.md`` into ``folder``, each atomically.

    Args:
        over_seeds: the table of ``replicates``, for the end of the Markdown and for ``over_seeds.csv``; None: that
            file, if there is one, is removed.
    """
    folder, text = Path(folder), to_markdown(table)
    atomic_write_text(folder / "table.csv", to_csv(table))
    if over_seeds is not None:
        atomic_write_text(folder / "over_seeds.csv", to_csv(over_seeds))
        text += f"\n## Over seeds\n\nMean ± sample standard deviation.\n\n{to_markdown(over_seeds)}"
    else:
        (folder / "over_seeds.csv").unlink(missing_ok=True)
    atomic_write_text(folder / "table.md", text)


def outcome_line(table: Table) -> str:
    """One line for the end of a sweep: ``6 cells, 4 runs: 3 finished, 1 failed``."""
    runs = [row for row in table.rows if not row["shares_row"]]
    states = Counter(state_of(row) for row in runs)
    counts = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{len(table.rows)} cells, {len(runs)} runs: {counts}"
