"""Exports of finished runs."""

from pathlib import Path
from typing import Any

from harness.plan.spec import Options
from tests.support.runs import plan_of

Made = tuple[dict[str, dict[str, Any]], Path]  # records by method and quantization, and their folder


def options_of(made: Made, which: str, folder: Path, *more: str) -> tuple[Options, dict[str, Any]]:
    """Options of an export of one of these runs, and its record."""
    kept, runs_dir = made[0][which], made[1]
    return plan_of(f"runs_dir={runs_dir}", f"run='{kept['fingerprint']}'", f"export.dir={folder}", *more)[1], kept
