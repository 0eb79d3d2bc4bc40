"""TensorBoard."""

import html
import json
from pathlib import Path
from typing import Any


class TensorBoardRun:
    """Event files in the run's own folder; a continued run adds a file."""

    def __init__(
        self, folder: Path, config: dict[str, Any], group: str, name: str, tags: list[str], run_id: str
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id: str | None = run_id
        self._writer = SummaryWriter(str(folder))
        self._step = 0
        about = {"group": group, "name": name, "tags": tags, "config": config}
        self._writer.add_text("about", _code(json.dumps(about, indent=1, ensure_ascii=False, default=str)))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._step = step
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def summary(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(f"summary/{key}", value, self._step)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join("|" + "|".join(map(_cell, line)) + "|" for line in lines)
        self._writer.add_text(name, text, self._step)

    def finish(self, ok: bool) -> None:
        self._writer.add_text("state", "finished" if ok else "failed", self._step)
        self._writer.close()


def _cell(value: Any) -> str:
    """One cell of a Markdown table; model output is escaped."""
    return html.escape(str(value)).replace("|", "\\|").replace("\n", "<br>")


def _code(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
