"""Locks that make "each plan is trained once" hold across processes and machines, on any shared folder.

They need one thing of the file system: renaming a folder is atomic and fails if a folder with content has that
name already (POSIX, NFS included). No flock, no hard links, no common clock. ``docs/locks.md`` argues why two
processes never both win, and states the limits.

A lock is a row of numbered folders, ``<folder>/lock/1``, ``2``, ...; only the highest number counts:

    lock/3/owner    held by the process that the file names; its modification time is the heartbeat
    lock/3/free     the same file, renamed by its owner: released
    lock/3/taken    its owner was found dead, and lock/4 was made

Whoever finds the highest one free or dead makes the next number, which only one process can. The highest is never
removed, so a process that judged long ago and acts late is too late, however long it slept in between.
"""

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from harness.errors import RunFault
from harness.record import lock_owners
from harness.record.lock_folders import (
    FREE,
    GONE,
    OWNER,
    Highest,
    Mark,
    give_back,
    highest_number,
    make_number,
    read_highest,
    tidy,
    token_of,
)
from harness.record.lock_owners import Owner
from harness.runtime.platform import patiently

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Watched:
    mark: Mark
    at: float
    silent_s: float


# What this process has seen of other hosts' locks, so that calls of ``take_lock`` far apart add up. Truly of the
# process: an entry only says how long this process has watched a heartbeat not change.
_watched: dict[Path, _Watched] = {}


class Lock:
    """A lock that this process has taken; a context manager that releases it.

    Attributes:
        path: its numbered folder.
        owner: host, pid and start of this process, as others read them.
        token: unique to this taking of the lock.
        lost: why the lock is no longer ours, if a heartbeat has found out; None as long as none has.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner, self.token = path, owner, str(owner["token"])
        self.lost: str | None = None
        self._renewed = monotonic()
        self._stop = threading.Event()
        # A daemon: a heartbeat must not keep alive a process whose work has ended.
        threading.Thread(target=self._beat, name=f"lock {path}", daemon=True).start()

    def held(self) -> bool:
        """Whether the lock is ours now. Ask before publishing a result; False means: publish nothing.

        Costs a heartbeat and a look at the folder. True also promises that no process that looks from now on takes
        it within ``stale_s``. False in a forked child, after ``release``, if another process took it because this
        one stalled, and if the file system does not answer.
        """
        if self.lost or self._stop.is_set() or os.getpid() != self.owner["pid"]:
            return False
        try:
            return self._renew()
        except OSError as fault:
            log.warning("%s: cannot tell whether the lock is still ours: %s", self.path, fault)
            return False

    def release(self) -> None:
        """Release the lock. Harmless when repeated, when the lock is lost, and in a forked child."""
        if os.getpid() != self.owner["pid"] or self._stop.is_set():
            return
        self._stop.set()
        try:
            # Only our own number is touched: if another has taken the lock from us, this changes nothing.
            patiently(os.rename, self.path / OWNER, self.path / FREE)
        except OSError as fault:
            if fault.errno not in GONE:
                log.warning("%s: cannot be released, so it stays taken until this process ends: %s", self.path, fault)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew(self) -> bool:
        """Beat, then look whether the lock is still ours."""
        silent_s = monotonic() - self._renewed
        try:
            os.utime(self.path / OWNER)
            ours = highest_number(self.path.parent) <= int(self.path.name) and token_of(self.path) == self.token
        except OSError as fault:
            if fault.errno not in GONE:
                raise
            ours = False
        if ours:
            self._renewed = monotonic()
        elif not self._stop.is_set():
            self._lose(f"another process took it, or its folder was removed; last heartbeat {silent_s:.1f} s ago")
        return ours

    def _beat(self) -> None:
        while not self._stop.wait(self.owner["beat_s"]):
            try:
                if not self._renew():
                    return
            except OSError as fault:
                # One failure must not end a run of hours; but we give up before others may take the lock.
                if monotonic() - self._renewed > self.owner["stale_s"] / 2:
                    self._lose(f"no heartbeat for {monotonic() - self._renewed:.0f} s: {fault}")
                    return

    def _lose(self, reason: str) -> None:
        if not self.lost:
            log.error("%s: this process lost the lock: %s", self.path, reason)
        self.lost = reason


def take_lock(folder: Path, name: str = "lock", *, beat_s: float = 15.0, stale_s: float = 120.0) -> Lock | None:
    """The lock ``<folder>/<name>``, or None if another process holds it or was quicker; never waits.

    A process cannot take a lock twice, from whichever thread. The lock of an owner on this machine can be taken
    once its process is gone, and never before; that of an owner on another machine once its heartbeat has not
    changed for ``stale_s`` of this process's clock, over at least three calls.

    Whoever gets a lock checks again whether there is anything to do: the former owner may have done it.

    Args:
        beat_s: seconds between heartbeats of the lock taken here; at most a quarter of ``stale_s``.
        stale_s: how long others wait for a heartbeat. Each lock carries its own: the owner's figure counts.

    Raises:
        RunFault: the folder cannot be read or written.
    """
    if not 0 < beat_s <= stale_s / 4:
        raise ValueError(f"beat_s={beat_s} must be above 0 and at most a quarter of stale_s={stale_s}")
    place = Path(folder).absolute() / name
    with _explaining_faults(place):
        seen = read_highest(place)
        return _make(place, seen.number + 1, beat_s, stale_s) if _takeable(place, seen, stale_s) else None


def holder(folder: Path, name: str = "lock") -> Owner | None:
    """Who holds the lock, dead or alive; {} if that cannot be read, None if the lock is free.

    Raises:
        RunFault: the folder cannot be read.
    """
    place = Path(folder).absolute() / name
    with _explaining_faults(place):
        seen = read_highest(place)
    return None if seen.free else seen.owner


def describe(owner: Owner) -> str:
    """``process 4711 on node7``."""
    return f"process {owner['pid']} on {owner['host']}" if owner else "an unknown process"


def _takeable(place: Path, seen: Highest, stale_s: float) -> bool:
    if seen.free:
        return True
    alive = lock_owners.living(seen.owner) if seen.owner else None
    if alive is not None:
        return not alive
    limit_s = seen.owner.get("stale_s", stale_s)
    return _silence(place, seen.mark, limit_s) >= limit_s


def _silence(place: Path, mark: Mark, limit_s: float) -> float:
    """Seconds for which we have watched the heartbeat not change; clocks of other hosts do not matter."""
    now, last = monotonic(), _watched.get(place)
    silent_s = 0.0
    if last and last.mark == mark:
        # A long gap may be our own sleep, or an outage of the file system that silenced everybody: it counts
        # for at most half of the limit, and during the other half a living owner beats.
        silent_s = last.silent_s + min(now - last.at, limit_s / 2)
    _watched[place] = _Watched(mark, now, silent_s)
    return silent_s


def _make(place: Path, number: int, beat_s: float, stale_s: float) -> Lock | None:
    """The lock under that number; None if another process made it, or a later one."""
    token, path = uuid.uuid4().hex, place / str(number)
    owner = lock_owners.this_process(token, beat_s, stale_s)
    try:
        if not make_number(path, owner):
            return None
        if highest_number(place) > number:
            # We looked before our number had been used and removed, and made it again afterwards: too late.
            give_back(path, token)
            return None
        _watched.pop(place, None)
        tidy(path)
        return Lock(path, owner)
    except BaseException:  # Ctrl-C, no more threads: without a heartbeat the number must not stay ours
        give_back(path, token)
        raise


@contextmanager
def _explaining_faults(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise RunFault(f"the lock {place} cannot be used: {fault}; free space or give write permission there") from None
