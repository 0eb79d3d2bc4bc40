"""How far a run is: ``<runs_dir>/<fingerprint>/progress.json``, for other processes, as long as the run lasts.

It is for people to look at; no result depends on it, and no fault here fails a run.
"""

import json
import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.record import provenance
from harness.record.files import replacing
from harness.runtime import distributed

NAME = "progress.json"


EVERY_S = 1.5  # between writes within training


@dataclass(frozen=True)
class Progress:
    """The content of the file; figures are None until they are known."""

    state: str  # loading, scoring before, training, scoring after
    step: int | None
    steps: int | None
    loss: float | None
    tokens_per_s: float | None
    left_s: float | None  # of training
    updated: float  # Unix time, by the clock of the run's machine
    owner: dict[str, Any]


class ProgressWriter:
    """Writes the file of one run, in the main process; each method is cheap, and none raises."""

    def __init__(self, folder: Path) -> None:
        self._path, self._owner = folder / NAME, provenance.owner()
        self._state = "loading"
        self._steps: tuple[int, int] | None = None  # where training began, and where it ends
        self._began = self._written = 0.0

    def enter(self, state: str) -> None:
        """A stage of the run begins."""
        self._state = state
        self._write(None, None, None, None)

    def begin(self, step: int, steps: int) -> None:
        """Training begins after ``step`` of its ``steps`` optimizer steps."""
        self._steps, self._began = (step, steps), time.monotonic()
        self._write(step, None, None, None)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= EVERY_S

    def step(self, step: int, loss: float | None, tokens_per_s: float) -> None:
        """An optimizer step has ended."""
        left = None
        if self._steps and step > self._steps[0]:
            began, end = self._steps
            # By wall-clock time: validation and saving take time as well.
            left = (time.monotonic() - self._began) / (step - began) * (end - step)
        self._write(step, loss, tokens_per_s, left)

    def end(self) -> None:
        """The run has ended: its record says the rest."""
        if not distributed.is_main_process():
            return
        with suppress(OSError):
            self._path.unlink()

    def _write(self, step: int | None, loss: float | None, tokens_per_s: float | None, left_s: float | None) -> None:
        if not distributed.is_main_process():
            return
        self._written = time.monotonic()
        steps = self._steps[1] if self._steps else None
        known = loss if loss is not None and math.isfinite(loss) else None
        content = asdict(Progress(self._state, step, steps, known, tokens_per_s, left_s, time.time(), self._owner))
        # No fsync: after a crash of the machine it does not matter how far the run was.
        with suppress(OSError), replacing(self._path) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")


def read_progress(folder: Path) -> Progress | None:
    """What the run in this folder wrote last; None if there is nothing that can be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return Progress(**content)
    except (OSError, ValueError, TypeError):
        return None
