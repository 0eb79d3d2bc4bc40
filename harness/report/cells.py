"""Cells of a sweep: what the user asked for in each row of a table, and the run that answers it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.schema import SHEETS

TableRow = dict[str, Any]

SHOWN_ELSEWHERE = ("method", "trainer.learning_rate", "trainer.threads")  # plan keys with a column, or no effect
NOTHING = "-"
NOT_STARTED = "not started"


@dataclass(frozen=True)
class TableCell:
    """One point of the grid: what the user asked for, and the run that answers it."""

    overrides: str  # as on the command line: "peft=ia3 lora.r=4"
    fingerprint: str
    method: str
    setting: str  # see setting_of
    reused: bool = False  # the record was there before this command
    not_started: bool = False  # by this command, which ended first; a record, if there is one, is older
    answered_by: str | None = None  # "finished by process 4711 on node7" while this command ran
    other_code: str | None = None  # code version of the record if it is not the present one


_WORD = re.compile(r"""(?:[^\s"'\[({]|"[^"]*"|'[^']*'|\[[^\]]*\]|\([^)]*\)|\{[^}]*\})+|\S""")


# In these the quotes of a value tell where it ends, or belong to it.
_NEEDED_QUOTES = re.compile(r"""[\s,(){}\[\]\\]|.['"].""", re.DOTALL)


def split_overrides(overrides: str | Sequence[str]) -> list[str]:
    """Single overrides; white space within quotes and brackets does not separate them."""
    return _WORD.findall(overrides) if isinstance(overrides, str) else list(overrides)


def shared_overrides(grid: Sequence[str | Sequence[str]]) -> frozenset[str]:
    """Overrides that all cells have, so that they distinguish none of them; empty for a single cell."""
    sets = [set(split_overrides(cell)) for cell in grid]
    return frozenset(set.intersection(*sets)) if len(sets) > 1 else frozenset()


def setting_of(overrides: str | Sequence[str], method: str, shared: Collection[str] = ()) -> str:
    """What distinguishes this cell from others, short: ``r=4`` for ``peft=lora lora.r=4``.

    Settings of another method's sheet have no effect here and are in parentheses: ``(lora.r=4)``. Overrides in
    ``shared`` are left out: they stand once below the table.
    """
    parts = []
    for override in split_overrides(overrides):
        key, _, value = override.lstrip("+~").partition("=")
        value = value if _NEEDED_QUOTES.search(value) else value.strip("'\"")
        sheet, _, rest = key.partition(".")
        if key == "peft" or override in shared:
            continue
        if sheet == method and rest:
            parts.append(f"{rest}={value}")
        else:
            parts.append(f"({key}={value})" if sheet in SHEETS and rest else f"{key}={value}")
    return " ".join(parts)


def cells_from_records(records: Sequence[Mapping[str, Any]]) -> list[TableCell]:
    """Cells for records whose commands are unknown: their settings are what differs between their plans."""
    plans = [_flat(record["plan"]) for record in records]
    values: dict[tuple[str, ...], set[str]] = {}
    for plan in plans:
        for key, value in plan.items():
            values.setdefault((*_peers(key, plan), key), set()).add(repr(value))
    cells = []
    for record, plan in zip(records, plans, strict=True):
        differing = [key for key in plan if key not in SHOWN_ELSEWHERE and len(values[(*_peers(key, plan), key)]) > 1]
        parts = (f"{key.removeprefix('settings.')}={plan[key]}" for key in differing if not key.startswith("inputs."))
        cells.append(TableCell("", record["fingerprint"], record["method"], " ".join(parts), reused=True))
    return cells


def _peers(key: str, plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The group of plans to compare a setting within: another method or model differs in all of its own settings."""
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
