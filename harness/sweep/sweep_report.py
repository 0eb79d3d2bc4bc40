"""What a sweep's folder tells a report: its cells, its commands, and what it selected."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.schema import Paper
from harness.errors import ConfigFault
from harness.report.build import Request, Winner
from harness.report.cells import NOT_STARTED
from harness.report.run_rows import missing_run
from harness.sweep import manifest
from harness.sweep.cells import Cell


@dataclass(frozen=True)
class SweepContent:
    """A sweep as its folder keeps it."""

    folder: Path
    name: str
    cells: Mapping[str, tuple[str, ...]]  # by fingerprint, in the order of the grid: overrides of each cell
    methods: Mapping[str, str]  # by fingerprint
    commands: tuple[str, ...]  # each once, the first one first
    winners: tuple[Winner, ...]
    paper: Paper | None = None  # what an experiment expects of its runs

    def added_to(self, request: Request, found: Collection[str], not_started: Collection[str] = ()) -> Request:
        """The request for a report of this sweep.

        Args:
            found: fingerprints of the runs that it shows; the others are shown as not run.
            not_started: those that a command did not start, because too many runs had failed.
        """
        missing = [
            missing_run(
                fingerprint, self.methods[fingerprint], cells, NOT_STARTED if fingerprint in not_started else "not run"
            )
            for fingerprint, cells in self.cells.items()
            if fingerprint not in found
        ]
        return replace(
            request,
            title=self.name,
            cells=self.cells,
            commands=self.commands,
            winners=self.winners,
            missing=tuple(missing),
            paper=request.paper or self.paper,
        )


def content_of(cells: Sequence[Cell], folder: Path) -> SweepContent:
    """The sweep of these cells, whose folder keeps its commands and what it selected."""
    named: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        named[cell.plan.fingerprint].append(cell.name)
    kept = read_sweep(folder) if (folder / manifest.MANIFEST_NAME).is_file() else None
    return SweepContent(
        folder=folder,
        name=cells[0].options.sweep_name or folder.name,
        cells={fingerprint: tuple(names) for fingerprint, names in named.items()},
        methods={cell.plan.fingerprint: cell.plan.method for cell in cells},
        commands=kept.commands if kept else (),
        winners=kept.winners if kept else (),
        paper=cells[0].options.paper,
    )


def read_sweep(folder: Path) -> SweepContent:
    """The sweep in this folder.

    Raises:
        ConfigFault: its manifest cannot be read.
    """
    try:
        content = json.loads((folder / manifest.MANIFEST_NAME).read_text(encoding="utf-8"))
        cells: dict[str, list[str]] = defaultdict(list)
        methods: dict[str, str] = {}
        for cell in content["cells"]:
            cells[cell["fingerprint"]].append(str(cell["name"]))
            methods[cell["fingerprint"]] = str(cell["method"])
        return SweepContent(
            folder=folder,
            name=str(content.get("name") or folder.name),
            cells={fingerprint: tuple(names) for fingerprint, names in cells.items()},
            methods=methods,
            commands=_commands(folder),
            winners=tuple(winner_from(each) for each in content.get("selection", {}).get("winners", ())),
            paper=Paper(**content["paper"]) if content.get("paper") else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigFault(
            f"report.sweep={folder} has no readable {manifest.MANIFEST_NAME} ({type(error).__name__}: {error}); name "
            "the folder of a sweep, or leave report.sweep out"
        ) from error


def winner_from(kept: Mapping[str, Any]) -> Winner:
    """A winner as the manifest keeps it."""
    return Winner(
        chosen=tuple(kept["chosen"]),
        final=tuple(kept["final"]),
        candidates=int(kept["candidates"]),
        score=str(kept["score"]),
        split=str(kept["split"]),
        per=str(kept["per"]),
    )


def _commands(folder: Path) -> tuple[str, ...]:
    found = []
    for file in folder.glob("commands/*.json"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append((str(content["started"]), str(content["command"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a command that is being written, or was cut off, adds nothing to the others
    return tuple(dict.fromkeys(command for _, command in sorted(found)))
