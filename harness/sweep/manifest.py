"""The manifest of a sweep, in ``<runs_dir>/sweeps/<hash of its cells>/``.

``sweep.json`` lists the cells and their plans; ``commands/`` holds one file for each command that ran them, because
two may do so at once.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.plan.spec import digest, plain
from harness.record import provenance
from harness.record.files import write_json
from harness.record.redact import redactor
from harness.record.run_record import Code
from harness.sweep.cells import Cell, effective_overrides

MANIFEST_NAME = "sweep.json"


ENDED = "ended"  # outcome of a command that showed its table, whatever the table says


def keep_manifest(cells: Sequence[Cell], folder: Path | None = None, **more: Any) -> Path:
    """Write the list of cells and their plans' fingerprints; returns the sweep's folder.

    Args:
        folder: of a sweep whose cells are not known beforehand; None: named by the cells, whatever the options.
        more: further entries of the manifest.
    """
    grid = [{"overrides": list(cell.overrides), "fingerprint": cell.plan.fingerprint} for cell in cells]
    options = cells[0].options
    key = [{"overrides": effective_overrides(cell.overrides), "fingerprint": cell.plan.fingerprint} for cell in cells]
    folder = folder or options.runs_dir / "sweeps" / digest(key)
    shown = [{**entry, "name": cell.name, "method": cell.plan.method} for entry, cell in zip(grid, cells, strict=True)]
    labels: dict[str, Any] = {"note": options.note, "tags": list(options.tags)}
    if options.paper.expect:
        labels["paper"] = plain(options.paper)
    write_manifest(folder, {"name": options.sweep_name, **labels, "cells": shown, **more})
    return folder


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace the manifest; secrets among the overrides are redacted."""
    write_json(folder / MANIFEST_NAME, content)


@contextmanager
def recorded_command(folder: Path) -> Iterator[None]:
    """Record that this command runs the sweep, and how it ended."""
    owner = provenance.owner()
    arguments = list(map(redactor(), sys.argv[1:]))  # now: the shell's quotes would hide a secret
    content: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "harness", *arguments]),
        "arguments": arguments,
        "folder": os.getcwd(),
        "started": _now(),
        "ended": None,
        "outcome": None,
        "owner": owner,
        "code": vars(Code.here()),
    }
    file = folder / "commands" / f"{time.strftime('%Y%m%dT%H%M%S')}-{owner['host']}-{owner['pid']}.json"
    write_json(file, content)
    outcome = ENDED
    try:
        yield
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise
    finally:
        with suppress(OSError):  # a full disk must not hide what ended the command
            write_json(file, content | {"ended": _now(), "outcome": outcome})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
