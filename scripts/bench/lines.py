"""Results that scripts keep, one JSON object a line, appended as they come, so that a stopped script goes on."""

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def read(file: Path) -> list[Line]:
    """All whole lines, none if there is no file yet; the last one may have been cut by a kill."""
    lines = []
    for text in file.read_text(encoding="utf-8").split("\n") if file.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def append(file: Path, line: Line) -> None:
    """Keep one more, on a line of its own also after one that was cut."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cut = file.exists() and file.stat().st_size > 0 and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * cut + json.dumps(line, ensure_ascii=False) + "\n")
