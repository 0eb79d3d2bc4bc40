"""One row of a table: a cell of a sweep beside its record."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema import SHEETS

TableRow = dict[str, Any]


SAID_ELSEWHERE = ("method", "trainer.learning_rate", "trainer.threads")  # keys of a plan: other columns, or idle


NOTHING = "-"


NOT_STARTED = "not started"


# --- the grid -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableCell:
    """One point of the grid: what the user asked for, and the run that answers it."""

    overrides: str  # as on the command line: "peft=ia3 lora.r=4"
    fingerprint: str
    method: str
    setting: str  # see setting_of
    reused: bool = False  # the record is not of this command
    idle: bool = False  # this command did not come to it; a record that there is, is not of now
    answer: str | None = None  # "finished by process 4711 on node7", while this command ran


_WORD = re.compile(r"""(?:[^\s"'\[({]|"[^"]*"|'[^']*'|\[[^\]]*\]|\([^)]*\)|\{[^}]*\})+|\S""")


def words(overrides: str | Sequence[str]) -> list[str]:
    """Single overrides; white space within quotes and brackets does not part them."""
    return _WORD.findall(overrides) if isinstance(overrides, str) else list(overrides)


def shared_overrides(grid: Sequence[str | Sequence[str]]) -> frozenset[str]:
    """Overrides that every cell has, which tell no cell from another; none where there is one cell."""
    sets = [set(words(cell)) for cell in grid]
    return frozenset(set.intersection(*sets)) if len(sets) > 1 else frozenset()


def setting_of(overrides: str | Sequence[str], method: str, shared: Collection[str] = ()) -> str:
    """What tells this cell from others, short: ``r=4`` for ``peft=lora lora.r=4``.

    Settings of another method's sheet have no effect here and stand in parentheses: ``(lora.r=4)``. Overrides
    in ``shared`` are left out, unless they are of the method's own sheet.
    """
    said = []
    for word in words(overrides):
        key, _, value = word.lstrip("+~").partition("=")
        sheet, _, rest = key.partition(".")
        if key == "peft" or (word in shared and sheet != method):
            continue
        if sheet == method and rest:
            said.append(f"{rest}={value}")
        else:
            said.append(f"({key}={value})" if sheet in SHEETS and rest else f"{key}={value}")
    return " ".join(said)


def cells_from_records(records: Sequence[Mapping[str, Any]]) -> list[TableCell]:
    """Cells for records whose commands are not known: settings are told from what differs in their plans."""
    plans = [_flat(record["plan"]) for record in records]
    values: dict[tuple[str, ...], set[str]] = {}
    for plan in plans:
        for key, value in plan.items():
            values.setdefault((*_peers(key, plan), key), set()).add(repr(value))
    cells = []
    for record, plan in zip(records, plans, strict=True):
        differing = [key for key in plan if key not in SAID_ELSEWHERE and len(values[(*_peers(key, plan), key)]) > 1]
        said = (f"{key.removeprefix('settings.')}={plan[key]}" for key in differing if not key.startswith("inputs."))
        cells.append(TableCell("", record["fingerprint"], record["method"], " ".join(said), reused=True))
    return cells


def _peers(key: str, plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The plans to compare a setting with: another method or model differs in everything that is its own."""
    group, _, rest = key.partition(".")
    if group in ("settings", "learning_rate"):
        return ("method", plan["method"])
    if group in ("model", "data") and rest != "name":
        return (group, plan[f"{group}.name"])
    return ()


def _flat(plan: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plan.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
