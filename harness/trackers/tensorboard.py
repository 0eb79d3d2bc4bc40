"""TensorBoard."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.schema import Tracker
from harness.trackers.start import STEP, Start


class TensorBoardRun:
    """Event files in the run's own folder; a continued run adds a file."""

    url: str | None = None

    def __init__(self, tracker: Tracker, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id: str | None = start.run_id
        self._writer = SummaryWriter(str(Path(tracker.dir) / start.run_id))
        self._step = 0
        about: dict[str, Any] = {"group": start.group, "name": start.name, "tags": start.tags, "notes": tracker.notes}
        about |= {"job_type": tracker.job_type, "config": start.config}
        self._writer.add_text("about", _code(json.dumps(about, indent=1, ensure_ascii=False, default=str)))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._step = step
        for key, value in values.items():
            if key != STEP:  # TensorBoard's own axis
                self._writer.add_scalar(key, value, step)

    def summary(self, values: Mapping[str, float | str]) -> None:
        for key, value in values.items():
            if isinstance(value, str):
                self._writer.add_text(f"summary/{key}", html.escape(value), self._step)
            else:
                self._writer.add_scalar(f"summary/{key}", value, self._step)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("|" + "|".join(map(_cell, line)) + "|" for line in lines)
        self._writer.add_text(name, text, self._step)

    def artifact(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        raise NotImplementedError("tracker.artifact=true is refused with tracker=tensorboard")

    def record(self, file: Path) -> None:
        """Nothing: event files hold no files."""

    def finish(self, ok: bool) -> None:
        self._writer.add_text("state", "finished" if ok else "failed", self._step)
        self._writer.close()


def _cell(value: Any) -> str:
    """One cell of a Markdown table; model output is escaped."""
    return html.escape(str(value)).replace("|", "\\|").replace("\n", "<br>")


def _code(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
