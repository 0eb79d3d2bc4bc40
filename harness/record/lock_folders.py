"""The numbered folders that a lock is made of: reading the highest one, making the next, removing old ones."""

import errno
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.record.lock_owners import Owner, parse_owner
from harness.runtime.platform import patiently

OWNER, FREE, TAKEN, NEW = "owner", "free", "taken", ".new-"


KEPT = 8  # numbers that stay below ours: a late taker then already fails at the rename


LEFTOVER_S = 3600.0  # a folder under a temporary name that is older was left by a killed process


OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: NFS, of a file that another host has removed


Mark = tuple[int, int, bytes]  # number, modification time and content of the owner file; changes with each heartbeat


@dataclass(frozen=True)
class Highest:
    """The highest number, as read just now."""

    number: int
    free: bool
    owner: Owner  # empty if the lock is free or its owner cannot be read
    mark: Mark


def highest_number(place: Path) -> int:
    """The number that counts; 0 if there is none yet."""
    try:
        return max((int(name) for name in os.listdir(place) if name.isdecimal()), default=0)
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        return 0


def read_highest(place: Path) -> Highest:
    """The highest number with its owner. Raises ``OSError``."""
    number = highest_number(place)
    path = place / str(number)
    try:
        modified, content = patiently(_read_owner, path / OWNER)
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        # No owner file: released, removed while we looked, or a number that nobody completed; silence tells the last.
        return Highest(number, number == 0 or (path / FREE).exists(), {}, (number, 0, b""))
    return Highest(number, False, parse_owner(content), (number, modified, content))


def _read_owner(path: Path) -> tuple[int, bytes]:
    # Opening, unlike stat, makes an NFS client ask the server.
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns, file.read()


def token_of(path: Path) -> str | None:
    """The token in the owner file of a numbered folder. Raises ``OSError``."""
    return parse_owner(patiently((path / OWNER).read_bytes)).get("token")


def make_number(path: Path, owner: Owner) -> bool:
    """Make the numbered folder, complete from its first moment; return whether it is ours. Raises ``OSError``."""
    new = path.with_name(NEW + owner["token"])
    try:
        new.mkdir(parents=True)
        (new / OWNER).write_text(json.dumps(owner), encoding="utf-8")
        try:
            patiently(os.rename, new, path)  # the one step that only one process can do
        except OSError as fault:
            # ENOENT: also NFS's answer to a rename that was sent twice and done once; the token decides.
            if fault.errno not in OCCUPIED + GONE:
                raise
    finally:
        _remove_number(new)
    return _is_at(path, owner["token"])


def _is_at(path: Path, token: str) -> bool:
    try:
        return token_of(path) == token
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        return False


def give_back(path: Path, token: str) -> None:
    """Free a number that must not stay ours."""
    with suppress(OSError):
        if _is_at(path, token):
            patiently(os.rename, path / OWNER, path / FREE)


def tidy(own: Path) -> None:
    """Let former owners know, and remove numbers far below ours and what killed processes left incomplete."""
    with suppress(OSError):
        # Both times are the file system's, so no two clocks are compared.
        youngest = own.stat().st_mtime - LEFTOVER_S
        for path in own.parent.iterdir():
            below = int(own.name) - int(path.name) if path.name.isdecimal() else 0
            if below >= KEPT or (path.name.startswith(NEW) and path.stat().st_mtime < youngest):
                _remove_number(path)
            elif below > 0 and (path / OWNER).exists():
                _evict(path)


def _evict(path: Path) -> None:
    # An owner that only slept notices at its next heartbeat, even if its client caches the listing.
    # One file stays, because a folder without content could be replaced.
    with suppress(OSError):
        (path / TAKEN).touch()
        (path / OWNER).unlink()


def _remove_number(path: Path) -> None:
    for name in (OWNER, FREE, TAKEN):
        with suppress(OSError):
            (path / name).unlink()
    with suppress(OSError):
        path.rmdir()
