"""Who holds a lock, and whether that process still runs."""

import json
import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from harness.record import provenance
from harness.runtime.platform import process_exists

Owner = dict[str, Any]  # host, pid, pid_started, token, where, ticks, beat_s, stale_s


def this_process(token: str, beat_s: float, stale_s: float) -> Owner:
    """This process as the owner of a lock."""
    identity = {"token": token, "where": machine(), "ticks": process_state(os.getpid())[1]}
    return provenance.owner() | identity | {"beat_s": beat_s, "stale_s": stale_s}


def parse_owner(content: bytes) -> Owner:
    """The owner that an owner file names; {} for what a crash of the machine or a stranger left there."""
    try:
        owner = json.loads(content)
        complete = type(owner["pid"]) is int and owner["pid"] > 0 and {"host", "token"} <= owner.keys()
        complete = complete and 0 < owner["stale_s"] < math.inf
    except (ValueError, KeyError, TypeError):
        return {}
    return owner if complete else {}


def living(owner: Owner) -> bool | None:
    """Whether the owner's process runs; None if that cannot be known from here.

    Stricter than ``provenance.alive``, because here a wrong "dead" means two owners: equal host names (containers,
    cloned machines), a wall clock that was set, or a hidden ``/proc`` do not mislead it.
    """
    if owner.get("where") != machine():
        return None
    if not process_exists(owner["pid"]):
        return False
    state, ticks = process_state(owner["pid"])
    if ticks is None or owner.get("ticks") is None:
        return provenance.alive(owner) or None
    return ticks == owner["ticks"] and state not in "ZX"


@cache
def machine() -> str:
    """This machine since its boot, and the namespace in which its process ids are valid."""
    parts = [provenance.owner()["host"]]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(map(str, parts))


def process_state(pid: int) -> tuple[str, int | None]:
    """State letter, and start in clock ticks since boot, which tells a process from a later one of its id."""
    try:
        # The name, in parentheses, may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", None
