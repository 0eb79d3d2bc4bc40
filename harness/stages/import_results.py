"""stage=import_results: published result files become records, which reports show beside the runs of one's own."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, DataFault
from harness.plan.spec import Options
from harness.record import store
from harness.record.foreign import SOURCE, record_of_file
from harness.report.texts import short_path
from harness.runtime.terminal import counted

log = logging.getLogger(__name__)

LISTED = 10  # files that a message names


def import_results(options: Options) -> None:
    """Read ``import_results.path``, a result file or a folder of them, into ``runs_dir``.

    A file without a result is named and left out. Importing a file again changes nothing.

    Raises:
        ConfigFault: the path does not exist.
        DataFault: no file could be imported.
    """
    path = Path(str(options.import_results.path)).expanduser().absolute()
    if not path.exists():
        raise ConfigFault(f"import_results.path={path} does not exist; name a result file or a folder of them")
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigFault(f"import_results.path={path} holds no JSON file; name a folder of results of {SOURCE}")
    new, known, faults = 0, 0, list[str]()
    for file in files:
        try:
            record = record_of_file(file)
        except DataFault as fault:
            faults.append(str(fault))
            continue
        fresh = _keep(options.runs_dir, record)
        new, known = new + fresh, known + (not fresh)
    if not new + known:
        rest = [f"... and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise DataFault("\n".join(faults[:LISTED] + rest))
    for text in faults:
        log.warning("left out: %s", text)
    again = f", {known} imported before" if known else ""
    log.info(
        "%s imported into %s%s; stage=report shows them", counted(new, "result"), short_path(options.runs_dir), again
    )


def _keep(runs_dir: Path, record: Mapping[str, Any]) -> bool:
    """Write the record, unless it is there; whether it was written."""
    present = store.read_record(runs_dir, record["fingerprint"])
    if present is not None and present.get("foreign") == record["foreign"]:
        return False
    store.write_record(runs_dir, record)
    return True
