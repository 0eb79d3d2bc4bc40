"""stage=report: tabulate the records in a folder."""

import logging
from pathlib import Path

from harness.errors import ConfigFault
from harness.record import store
from harness.report.cells import cells_from_records
from harness.report.files import outcome_line, write_tables
from harness.report.table import build_table
from harness.sweep.summary import print_table, short_path

log = logging.getLogger(__name__)


def report_records(runs_dir: Path) -> None:
    """Tabulate every record below ``runs_dir``, with the same as CSV and Markdown beside them.

    Raises:
        ConfigFault: there is none.
    """
    records = store.all_records(runs_dir)
    if not records:
        raise ConfigFault(f"runs_dir={runs_dir} holds no record; run something first, or set runs_dir")
    by_fingerprint = {kept["fingerprint"]: kept for kept in records}
    table = build_table(cells_from_records(records), by_fingerprint)
    write_tables(runs_dir, table, print_table(table, by_fingerprint))
    log.info("%s; the table as CSV and Markdown: %s", outcome_line(table), short_path(runs_dir))
