"""The processor, in the words of Linux: its name and its instructions."""

import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def name(file: Path = CPUINFO) -> str:
    """Its name; elsewhere than on Linux what Python says, which may be the architecture alone."""
    return _field("model name", file) or platform.processor() or platform.machine()


def flags(file: Path = CPUINFO) -> set[str]:
    """Its instructions, such as ``avx512_bf16``; none where they are not told."""
    return set(_field("flags|Features", file).split())


def _field(names: str, file: Path) -> str:
    """The first line of that name; empty if there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^(?:{names})\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
