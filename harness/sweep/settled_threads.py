"""The number of threads of a sweep, chosen by its first command and kept by the others.

Runs that differ in it differ in their last digits, so a sweep that is resumed on a busier machine keeps it.
"""

import json
import logging
from pathlib import Path

from harness.record.files import write_json
from harness.runtime import threads
from harness.runtime.threads import Threads

log = logging.getLogger(__name__)

NAME = "threads.json"


def settle_threads(folder: Path) -> Threads:
    """The threads of the sweep in this folder, for all of its workers together.

    ``OMP_NUM_THREADS`` counts before what an earlier command has chosen, and ``trainer.threads`` before both.
    """
    named = threads.given()
    if named is not None:
        return named
    earlier = _read(folder / NAME)
    if earlier is None:
        chosen = threads.total()
        write_json(folder / NAME, vars(chosen))
        return chosen
    if earlier.count > threads.usable_cores():
        log.warning(
            "this sweep began with %d threads, but this process may use only %g cores, so it will be slow; "
            "trainer.threads sets another number, which changes the last digits of the results",
            *(earlier.count, threads.usable_cores()),
        )
    threads.keep(earlier)
    return earlier


def _read(file: Path) -> Threads | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Threads(int(content["count"]), f"chosen when the sweep began: {content['why']}")
    except (OSError, ValueError, KeyError, TypeError):
        return None
