"""Locks that make "each plan is trained once" hold across processes and machines, on any shared folder.

They need one thing of the file system: renaming a folder is atomic and fails where a folder with content has
that name already (POSIX, NFS included). No flock, no hard links, no common clock. ``docs/locks.md`` gives
the argument why two processes never both win, and the limits.

A lock is a row of numbered folders, ``<folder>/lock/1``, ``2``, ...; only the highest number counts:

    lock/3/owner    held by the process that the file names; its modification time is the heartbeat
    lock/3/free     the same file, renamed by its owner: released
    lock/3/taken    its owner was found dead, and lock/4 was made

Whoever finds the highest one free or dead makes the next number, which only one can. The highest is never
removed, so someone who judged long ago and acts late comes too late, however long it slept in between.
"""

import errno
import json
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

from harness.errors import RunFault
from harness.record import provenance

log = logging.getLogger(__name__)


OWNER, FREE, TAKEN, NEW = "owner", "free", "taken", ".new-"


KEPT = 8  # numbers left standing below ours: a late taker then fails at the rename already


LEFTOVER_S = 3600.0  # a folder under a temporary name that is older was left by a killed process


OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


GONE = (errno.ENOENT, errno.ESTALE)  # ESTALE: NFS, of a file that another host has removed


Owner = dict[str, Any]


@dataclass(frozen=True)
class _Seen:
    """The highest number, as read just now; ``mark`` changes with each heartbeat."""

    number: int
    free: bool
    owner: Owner  # empty where it is free or cannot be read
    mark: tuple[int, int, bytes]


@dataclass(frozen=True)
class _Watched:
    mark: tuple[int, int, bytes]
    at: float
    silent_s: float


# What this process has seen of other hosts' locks, so that calls of ``take`` far apart add up.
_watched: dict[Path, _Watched] = {}


class Lock:
    """A lock that this process has taken; a context manager that releases it.

    Attributes:
        path: its numbered folder.
        owner: host, pid and start of this process, as others read them.
        token: unique to this taking of the lock.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner, self.token = path, owner, str(owner["token"])
        self._lost: str | None = None
        self._renewed = monotonic()
        self._stop = threading.Event()
        # A daemon: a heartbeat must not keep alive a process whose work has ended.
        threading.Thread(target=self._beat, name=f"lock {path}", daemon=True).start()

    def held(self) -> bool:
        """Whether the lock is ours now. Ask before publishing a result; False means: publish nothing.

        Costs a heartbeat and a look at the folder. True also promises that nobody who looks from now on
        takes it within ``stale_s``. False in a forked child, after ``release``, where another took it
        because this process stalled, and where the file system does not answer.
        """
        if self._lost or self._stop.is_set() or os.getpid() != self.owner["pid"]:
            return False
        try:
            return self._renew()
        except OSError as fault:
            log.warning("%s: cannot tell whether the lock is still ours: %s", self.path, fault)
            return False

    def release(self) -> None:
        """Let others have it. Harmless when repeated, when the lock is lost, and in a forked child."""
        if os.getpid() != self.owner["pid"] or self._stop.is_set():
            return
        self._stop.set()
        try:
            # Only our own number is touched: if another has taken the lock from us, this changes nothing.
            os.rename(self.path / OWNER, self.path / FREE)
        except OSError as fault:
            if fault.errno not in GONE:
                log.warning("%s: not released, so it stays taken until this process ends: %s", self.path, fault)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew(self) -> bool:
        """Show that we live, then look whether the lock is still ours."""
        silent_s = monotonic() - self._renewed
        try:
            os.utime(self.path / OWNER)
            ours = _highest(self.path.parent) <= int(self.path.name) and _token(self.path) == self.token
        except OSError as fault:
            if fault.errno not in GONE:
                raise
            ours = False
        if ours:
            self._renewed = monotonic()
        elif not self._stop.is_set():
            self._lose(f"another took it, or its folder was removed; the last heartbeat was {silent_s:.1f} s ago")
        return ours

    def _beat(self) -> None:
        while not self._stop.wait(self.owner["beat_s"]):
            try:
                if not self._renew():
                    return
            except OSError as fault:
                # One failure is not the end of a run of hours; but we stop before others may take over.
                if monotonic() - self._renewed > self.owner["stale_s"] / 2:
                    self._lose(f"no heartbeat for {monotonic() - self._renewed:.0f} s: {fault}")
                    return

    def _lose(self, reason: str) -> None:
        if not self._lost:
            log.error("%s: this process lost the lock: %s", self.path, reason)
        self._lost = reason


def take_lock(folder: Path, name: str = "lock", *, beat_s: float = 15.0, stale_s: float = 120.0) -> Lock | None:
    """The lock ``<folder>/<name>``, or None where another holds it or was quicker; never waits.

    The same process may not take a lock twice, from whichever thread. An owner on this machine is taken
    over once its process is gone, and never before. One on another machine is taken over once its heartbeat
    has not changed for ``stale_s`` of this process's clock, over three calls at least.

    Whoever gets a lock checks again whether there is anything to do: the former owner may have done it.

    Args:
        beat_s: seconds between heartbeats of the lock taken here; at most a quarter of ``stale_s``.
        stale_s: how long others wait for one. Each lock carries its own: the owner's figure counts.

    Raises:
        RunFault: the folder cannot be read or written.
    """
    if not 0 < beat_s <= stale_s / 4:
        raise ValueError(f"beat_s={beat_s} must be above 0 and at most a quarter of stale_s={stale_s}")
    place = Path(folder).absolute() / name
    with _told(place):
        seen = _look(place)
        return _make(place, seen.number + 1, beat_s, stale_s) if _takeable(place, seen, stale_s) else None


def wait(
    folder: Path,
    name: str = "lock",
    *,
    until: Callable[[], bool],
    poll_s: float = 2.0,
    on_wait: Callable[[Owner], None] = lambda owner: None,
    beat_s: float = 15.0,
    stale_s: float = 120.0,
) -> Lock | None:
    """Wait for the lock; None as soon as ``until()`` is true, such as: the record is finished.

    ``until`` is asked before each try, and once more when the lock is ours, because its former owner may have
    finished between the two. ``on_wait`` gets the owner, {} if unknown, when waiting starts and whenever the
    owner changes; ``describe`` puts it in words.

    Raises:
        RunFault: as ``take``; what ``until`` and ``on_wait`` raise passes through.
    """
    told: Owner | None = None
    while not until():
        lock = take_lock(folder, name, beat_s=beat_s, stale_s=stale_s)
        if lock:
            try:
                idle = until()
            except BaseException:
                lock.release()
                raise
            if not idle:
                return lock
            lock.release()
            return None
        owner = holder(folder, name)
        if owner is not None and owner != told:
            on_wait(owner)
            told = owner
        time.sleep(poll_s)
    return None


def holder(folder: Path, name: str = "lock") -> Owner | None:
    """Who holds the lock, dead or alive; {} where that cannot be read, None where it is free.

    Raises:
        RunFault: the folder cannot be read.
    """
    place = Path(folder).absolute() / name
    with _told(place):
        seen = _look(place)
    return None if seen.free else seen.owner


def describe(owner: Owner) -> str:
    """``process 4711 on node7``."""
    return f"process {owner['pid']} on {owner['host']}" if owner else "an unknown process"


@contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise RunFault(f"the lock {place} cannot be used: {fault}; make room or give write permission there") from None


# --- reading ----------------------------------------------------------------------------------------------


def _highest(place: Path) -> int:
    """The number that counts; 0 where there is none yet."""
    try:
        return max((int(name) for name in os.listdir(place) if name.isdecimal()), default=0)
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        return 0


def _look(place: Path) -> _Seen:
    number = _highest(place)
    path = place / str(number)
    try:
        # Opening, unlike stat, makes an NFS client ask the server.
        with open(path / OWNER, "rb") as file:
            mark = number, os.fstat(file.fileno()).st_mtime_ns, file.read()
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        # Neither file: removed while we looked, or a number that nobody completed. Time will tell which.
        return _Seen(number, number == 0 or (path / FREE).exists(), {}, (number, 0, b""))
    return _Seen(number, False, _parsed(mark[2]), mark)


def _parsed(content: bytes) -> Owner:
    """The owner; {} for what a crash of the machine or a stranger left there."""
    try:
        owner = json.loads(content)
        whole = type(owner["pid"]) is int and owner["pid"] > 0 and {"host", "token"} <= owner.keys()
        whole = whole and 0 < owner["stale_s"] < math.inf
    except (ValueError, KeyError, TypeError):
        return {}
    return owner if whole else {}


def _token(path: Path) -> str | None:
    return _parsed((path / OWNER).read_bytes()).get("token")


# --- judging ----------------------------------------------------------------------------------------------


def _takeable(place: Path, seen: _Seen, stale_s: float) -> bool:
    if seen.free:
        return True
    lives = living(seen.owner) if seen.owner else None
    if lives is not None:
        return not lives
    limit_s = seen.owner.get("stale_s", stale_s)
    return _silence(place, seen.mark, limit_s) >= limit_s


def _silence(place: Path, mark: tuple[int, int, bytes], limit_s: float) -> float:
    """Seconds for which we have watched the heartbeat not change; clocks of other hosts play no part."""
    now, last = monotonic(), _watched.get(place)
    silent_s = 0.0
    if last and last.mark == mark:
        # A long gap may be our own sleep, or an outage of the file system that silenced everybody: it
        # counts for half of the limit at most, and in the other half a living owner beats.
        silent_s = last.silent_s + min(now - last.at, limit_s / 2)
    _watched[place] = _Watched(mark, now, silent_s)
    return silent_s


def living(owner: Owner) -> bool | None:
    """Whether the owner's process runs; None where that cannot be known from here.

    Stricter than ``provenance.alive``, for here a wrong "dead" means two owners: it is not misled by equal
    host names (containers, cloned machines), by a wall clock set anew, or by a hidden ``/proc``.
    """
    if owner.get("where") != _where():
        return None
    if os.name == "posix":  # elsewhere signal 0 is no mere question
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # of another user: it exists
    state, ticks = _stat(owner["pid"])
    if ticks is None or owner.get("ticks") is None:
        return provenance.alive(owner) or None
    return ticks == owner["ticks"] and state not in "ZX"


@cache
def _where() -> str:
    """The machine since its boot, and the process ids that are meaningful here."""
    parts = [provenance.owner()["host"]]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(map(str, parts))


def _stat(pid: int) -> tuple[str, int | None]:
    """State letter, and start in clock ticks since boot, which tells a process from a later one of its id."""
    try:
        # The name, in parentheses, may hold blanks and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", None


# --- making -----------------------------------------------------------------------------------------------


def _make(place: Path, number: int, beat_s: float, stale_s: float) -> Lock | None:
    """The lock under that number; None where another made it, or a later one."""
    token, path = uuid.uuid4().hex, place / str(number)
    owner = provenance.owner() | {"token": token, "where": _where(), "ticks": _stat(os.getpid())[1]}
    owner |= {"beat_s": beat_s, "stale_s": stale_s}
    try:
        if not _put(path, owner):
            return None
        if _highest(place) > number:
            # We looked before, and put our number after, it had been used and removed: too late.
            _give_back(path, token)
            return None
        _watched.pop(place, None)
        _tidy(path)
        return Lock(path, owner)
    except BaseException:  # Ctrl-C, no more threads: without a heartbeat the number must not stay ours
        _give_back(path, token)
        raise


def _put(path: Path, owner: Owner) -> bool:
    """Make the numbered folder, complete from its first moment; whether it is ours."""
    new = path.with_name(NEW + owner["token"])
    try:
        new.mkdir(parents=True)
        (new / OWNER).write_text(json.dumps(owner), encoding="utf-8")
        try:
            os.rename(new, path)  # the one step that only one can do
        except OSError as fault:
            # ENOENT: also NFS's answer to a rename that was sent twice and done once; the token tells.
            if fault.errno not in OCCUPIED + GONE:
                raise
    finally:
        _remove(new)
    return _is_at(path, owner["token"])


def _is_at(path: Path, token: str) -> bool:
    try:
        return _token(path) == token
    except OSError as fault:
        if fault.errno not in GONE:
            raise
        return False


def _give_back(path: Path, token: str) -> None:
    with suppress(OSError):
        if _is_at(path, token):
            os.rename(path / OWNER, path / FREE)


def _tidy(own: Path) -> None:
    """Tell former owners, remove numbers far below ours, and what killed processes left half made."""
    with suppress(OSError):
        # Both times are the file system's, so no two clocks are compared.
        youngest = own.stat().st_mtime - LEFTOVER_S
        for path in own.parent.iterdir():
            below = int(own.name) - int(path.name) if path.name.isdecimal() else 0
            if below >= KEPT or (path.name.startswith(NEW) and path.stat().st_mtime < youngest):
                _remove(path)
            elif below > 0 and (path / OWNER).exists():
                _evict(path)


def _evict(path: Path) -> None:
    # An owner that only slept learns it at its next heartbeat, even where its client caches the listing.
    # Something stays, because a folder without content could be made anew.
    with suppress(OSError):
        (path / TAKEN).touch()
        (path / OWNER).unlink()


def _remove(path: Path) -> None:
    for name in (OWNER, FREE, TAKEN):
        with suppress(OSError):
            (path / name).unlink()
    with suppress(OSError):
        path.rmdir()
