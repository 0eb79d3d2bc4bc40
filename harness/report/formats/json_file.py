"""``report.json``: the whole report but for answers and curves, which stand in the runs' own files."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.record.redact import clean, redactor
from harness.report.model import Report

LEFT_OUT = ("details", "training", "validation")  # of a run: its record holds them


def to_json(report: Report) -> str:
    """The report's own fields, as ``harness.report.model`` describes them; numbers that JSON lacks are null."""
    content = clean(_plain(report), "", [], redactor())
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.name not in LEFT_OUT}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path | Enum):
        return str(value) if isinstance(value, Path) else value.value
    return value
