"""The claims in a folder of runs, as their files tell it. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.estimate import duration
from harness.report.claims import NAME
from harness.report.plain_table import plain_table
from harness.runtime.terminal import counted, printable
from harness.sweep import manifest

OPEN, TUNING, UNREADABLE = "open", "tuning", "unreadable"

STYLES = {"supported": "green", "refuted": "bold red", UNREADABLE: "bold red"}


@dataclass(frozen=True)
class ClaimView:
    """One claim as it is now."""

    name: str
    text: str
    state: str  # supported, refuted, undecided, open, tuning, unreadable
    pairs: str
    cost: str


def view_claims(runs_dir: Path) -> list[ClaimView]:
    """The claims of this folder by name, whether or not they are decided."""
    folders = {file.parent for name in (NAME, manifest.MANIFEST_NAME) for file in runs_dir.glob(f"claims/*/{name}")}
    return [_view(folder) for folder in sorted(folders)]


def claims_table(claims: list[ClaimView]) -> Table:
    """The claims for a console; long ones are broken between words."""
    table = plain_table("claims")
    for column in ("name", "claim", "verdict", "pairs", "cost"):
        table.add_column(column, no_wrap=column == "verdict", overflow="fold")
    for each in claims:
        state = Text(each.state, style=STYLES.get(each.state, ""))
        words = [Text(printable(part, one_line=True)) for part in (each.name, each.text)]
        table.add_row(*words, state, Text(each.pairs), Text(each.cost))
    return table


def _view(folder: Path) -> ClaimView:
    file = folder / NAME
    if not file.is_file():
        return ClaimView(folder.name, "", TUNING, "", "")
    try:
        return _from_content(folder.name, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ClaimView(folder.name, "", UNREADABLE, "", "")


def _from_content(name: str, content: dict[str, Any]) -> ClaimView:
    expected = content["expected_pairs"]
    more = f", about {max(int(expected), 1)} more" if expected is not None else ""
    cost = content["cost"]
    return ClaimView(
        name=name,
        text=str(content["claim"]["text"]),
        state=OPEN if content["stopped"] is None else str(content["verdict"]),
        pairs=f"{int(content['pairs'])}{more}",
        cost=f"{counted(int(cost['runs']), 'run')}, {duration.in_words(float(cost['seconds']))}",
    )
