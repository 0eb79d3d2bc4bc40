"""What was measured, and on what."""

import datetime
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lines
from lines import Line

from harness.runtime import processor


class Results:
    """The lines of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = [line for line in lines.read(file) if "kind" in line]

    def add(self, kind: str, **values: Any) -> Line:
        """Keep one measurement."""
        line = {"kind": kind, **values, "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        lines.append(self.file, line)
        self.lines.append(line)
        return line

    def has(self, kind: str, **values: Any) -> bool:
        """Whether such a measurement is there already."""
        return bool(self.find(kind, lambda line: all(line.get(name) == value for name, value in values.items())))

    def find(self, kind: str, chosen: Callable[[Line], bool] = lambda line: True) -> list[Line]:
        return [line for line in self.lines if line["kind"] == kind and chosen(line)]


def machine(root: Path) -> Line:
    """On what, and on which code."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
    }


def _cpu() -> str:
    """Its name, with the instructions that decide about speed in low precision."""
    flags = processor.flags()
    special = [name for flag, name in (("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX")) if flag in flags]
    return f"{processor.name()} ({', '.join(special) or 'neither AVX512-BF16 nor AMX'})"
