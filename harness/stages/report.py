"""stage=report: tabulate the records in a folder."""

from dataclasses import replace
from pathlib import Path

from harness.errors import ConfigFault
from harness.record import store
from harness.report.cells import cells_from_records
from harness.report.table import build_table
from harness.sweep.reuse import other_code
from harness.sweep.summary import show_table


def report_records(runs_dir: Path) -> None:
    """Print a table of every record below ``runs_dir``, and write it there as CSV and Markdown.

    Raises:
        ConfigFault: there is no record.
    """
    records = store.all_records(runs_dir)
    if not records:
        raise ConfigFault(f"runs_dir={runs_dir} holds no record; run something first, or set runs_dir")
    by_fingerprint = {record["fingerprint"]: record for record in records}
    cells = [
        replace(cell, other_code=other_code(by_fingerprint[cell.fingerprint])) for cell in cells_from_records(records)
    ]
    table = build_table(cells, by_fingerprint)
    show_table(table, by_fingerprint, runs_dir)
