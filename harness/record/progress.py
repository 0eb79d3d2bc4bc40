"""How far a run is: on the console, and in ``<runs_dir>/<fingerprint>/progress.json`` for other processes.

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
from harness.record.redact import redactor
from harness.runtime import distributed
from harness.runtime.status_line import STATUS, clock
from harness.runtime.terminal import short_count

NAME = "progress.json"


EVERY_S = 1.5  # between writes within training


@dataclass(frozen=True)
class Progress:
    """The content of the file; figures are None until they are known."""

    state: str  # loading, scoring before, training, scoring after
    step: int | None  # of training: optimizer steps; of scoring: rows
    steps: int | None
    loss: float | None
    tokens_per_s: float | None
    left_s: float | None  # of training, or of this pass over the scored rows
    updated: float  # Unix time, by the clock of the run's machine
    owner: dict[str, Any]
    unit: str = "step"  # what is counted: step, loss (rows whose loss is known), answer

    def in_words(self) -> str:
        """``step 120/300  loss 0.41  9.8k tok/s  1:02 left``, without what is not known."""
        parts = []
        if self.state != "training":
            parts.append(self.state)
        if self.steps:
            parts.append(f"{self.unit} {self.step or 0}/{self.steps}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3g}")
        if self.tokens_per_s is not None:
            parts.append(f"{short_count(self.tokens_per_s)} tok/s")
        if self.left_s is not None:
            parts.append(f"{clock(self.left_s)} left")
        return "  ".join(parts)


class ProgressWriter:
    """Shows and writes the progress of one run, in the main process; each method is cheap, and none raises.

    Args:
        folder: of the run.
        label: of its line on the console.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self._path, self._owner, self._label = folder / NAME, provenance.owner(), redactor()(label)
        self._state, self._unit = "loading", "step"
        self._steps: tuple[int, int] | None = None  # where training, or a pass over rows, began, and where it ends
        self._began = self._written = 0.0

    def enter(self, state: str) -> None:
        """A stage of the run begins."""
        self._state, self._steps, self._unit = state, None, "step"
        self._write(None, None, None, None)

    def begin(self, step: int, steps: int, unit: str = "step") -> None:
        """Training begins after ``step`` of its ``steps`` optimizer steps; or a pass over so many rows."""
        self._steps, self._began, self._unit = (step, steps), time.monotonic(), unit
        self._write(step, None, None, None)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= EVERY_S

    def step(self, step: int, loss: float | None = None, tokens_per_s: float | None = None) -> None:
        """An optimizer step has ended, or so many rows are scored."""
        left = None
        if self._steps and step > self._steps[0]:
            began, end = self._steps
            # By wall-clock time: validation and saving take time as well.
            left = (time.monotonic() - self._began) / (step - began) * (end - step)
        self._write(step, loss, tokens_per_s, left)

    def scored(self, unit: str, rows: int, of: int) -> None:
        """So many rows have a loss, or an answer."""
        if self._unit != unit or self._steps != (0, of) or rows == 0:
            self.begin(0, of, unit)
        elif self.due():
            self.step(rows)

    def end(self) -> None:
        """The run has ended: its record says the rest."""
        if not distributed.is_main_process():
            return
        STATUS.clear()
        with suppress(OSError):
            self._path.unlink()

    def _write(self, step: int | None, loss: float | None, tokens_per_s: float | None, left_s: float | None) -> None:
        if not distributed.is_main_process():
            return
        self._written = time.monotonic()
        steps = self._steps[1] if self._steps else None
        known = loss if loss is not None and math.isfinite(loss) else None
        now = Progress(self._state, step, steps, known, tokens_per_s, left_s, time.time(), self._owner, self._unit)
        STATUS.show(self._label, now.in_words())
        # No fsync: after a crash of the machine it does not matter how far the run was.
        with suppress(OSError), replacing(self._path) as partial:
            partial.write_text(json.dumps(asdict(now)), encoding="utf-8")


def read_progress(folder: Path) -> Progress | None:
    """What the run in this folder wrote last; None if there is nothing that can be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return Progress(**content)
    except (OSError, ValueError, TypeError):
        return None
