"""Locks: one owner at a time, whichever process dies when."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import RunFault
from harness.record import lock_owners, locks
from harness.record.lock_folders import KEPT
from harness.record.locks import take_lock
from tests.support.paths import ROOT

FAST = {"beat_s": 0.05, "stale_s": 1.0}


def start(folder: Path, code: str) -> subprocess.Popen:
    """A Python process that runs ``code`` with ``take_lock`` and ``folder`` defined."""
    prelude = "import os, sys, time\nfrom pathlib import Path\nfrom harness.record.locks import take_lock\n"
    command = [sys.executable, "-c", f"{prelude}folder = Path(sys.argv[1])\n{code}", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


HOLD = "lock = take_lock(folder, beat_s=0.05, stale_s=1.0)\nprint(bool(lock), flush=True)\ntime.sleep(60)"


@pytest.fixture
def elsewhere(monkeypatch):
    """Owners seem to run on another machine, so that only their heartbeat can be judged."""
    monkeypatch.setattr(lock_owners, "living", lambda owner: None)


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test moves: ``clock[0] += seconds``."""
    now = [1000.0]
    monkeypatch.setattr(locks, "monotonic", lambda: now[0])
    return now


def lock_of_silent_owner(folder: Path, **fields) -> Path:
    """A lock of a process on another machine that never beats; returns its owner file."""
    owner = {"host": "far", "pid": 1, "token": "t", "where": "far", "ticks": 1, "beat_s": 15.0, "stale_s": 120.0}
    path = folder / "lock" / "1" / "owner"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(owner | fields))
    return path


# --- one process ------------------------------------------------------------------------------------------


def test_second_taker_gets_nothing_until_release(tmp_path):
    lock = take_lock(tmp_path)
    assert lock
    assert lock.held()
    assert lock.path == tmp_path / "lock" / "1"
    assert take_lock(tmp_path) is None
    assert locks.holder(tmp_path)["pid"] == os.getpid()
    lock.release()
    assert not lock.held()
    assert locks.holder(tmp_path) is None
    with take_lock(tmp_path) as again:
        assert again.held()
    assert locks.holder(tmp_path) is None


def test_threads_of_one_process_exclude_each_other(tmp_path):
    barrier, got = threading.Barrier(8), []

    def try_once() -> None:
        barrier.wait()
        got.append(take_lock(tmp_path))

    threads = [threading.Thread(target=try_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lock is not None for lock in got) == 1
    next(filter(None, got)).release()


def test_locks_of_other_names_and_folders_are_independent(tmp_path):
    with take_lock(tmp_path, "a") as a, take_lock(tmp_path, "b") as b, take_lock(tmp_path / "sub" / "folder", "a") as c:
        assert a.held()
        assert b.held()
        assert c.held()


def test_release_twice_frees_nothing_of_the_next_owner(tmp_path):
    first = take_lock(tmp_path)
    first.release()
    second = take_lock(tmp_path)
    first.release()
    assert second.held()
    assert take_lock(tmp_path) is None
    second.release()


def test_heartbeat_touches_and_stops_at_release(tmp_path):
    lock = take_lock(tmp_path, **FAST)
    before = (lock.path / "owner").stat().st_mtime_ns
    time.sleep(0.3)
    assert (lock.path / "owner").stat().st_mtime_ns > before
    lock.release()
    time.sleep(0.2)
    assert not [thread for thread in threading.enumerate() if thread.name == f"lock {lock.path}"]


def test_unreleased_lock_does_not_keep_the_process_alive(tmp_path):
    process = start(tmp_path, code="lock = take_lock(folder)\nprint(lock.held())")
    assert process.communicate(timeout=20)[0].strip() == "True"
    assert process.returncode == 0
    assert take_lock(tmp_path) is not None  # its process is gone


def test_failing_heartbeats_lose_the_lock_before_others_may_take_it(tmp_path, monkeypatch, clock, caplog):
    lock = take_lock(tmp_path, beat_s=0.02, stale_s=100.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "utime", full)
    time.sleep(0.1)
    assert not lock.held()  # it cannot be known
    assert lock.lost is None  # but one failure is not the end
    clock[0] += 51
    time.sleep(0.1)
    monkeypatch.undo()
    assert not lock.held()
    assert "No space left" in caplog.text
    lock.release()
    assert take_lock(tmp_path) is not None  # a lost lock is still given back


def test_removed_folder_loses_the_lock(tmp_path):
    lock = take_lock(tmp_path, **FAST)
    (lock.path / "owner").unlink()
    lock.path.rmdir()
    time.sleep(0.2)
    assert lock.lost
    assert not lock.held()
    lock.release()


def test_interrupt_while_taking_leaves_the_lock_free(tmp_path, monkeypatch):
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_lock(tmp_path)
    monkeypatch.undo()
    assert take_lock(tmp_path) is not None


def test_unwritable_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "lock").write_text("a file")
    for use in (take_lock, locks.holder):
        with pytest.raises(RunFault, match=r"the lock .*/lock cannot be used: .*; free space"):
            use(tmp_path)


def test_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFault, match="No space left"):
        take_lock(tmp_path)
    assert list((tmp_path / "lock").iterdir()) == []


def test_beat_must_fit_into_stale(tmp_path):
    with pytest.raises(ValueError, match="quarter"):
        take_lock(tmp_path, beat_s=31, stale_s=120)


def test_few_numbers_remain_however_often_it_is_taken(tmp_path):
    for _ in range(50):
        take_lock(tmp_path).release()
    names = sorted(int(path.name) for path in (tmp_path / "lock").iterdir())
    assert names == list(range(50 - KEPT + 1, 51))


# --- several processes ------------------------------------------------------------------------------------


@pytest.mark.posix
def test_forked_child_neither_holds_nor_releases(tmp_path):
    process = start(
        tmp_path,
        code="lock = take_lock(folder)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with lock: wrong = lock.held() or take_lock(folder) is not None\n"
        "    os._exit(wrong)\n"
        "print(os.waitpid(child, 0)[1], lock.held())",
    )
    assert process.communicate(timeout=20)[0].strip() == "0 True"


@pytest.mark.parametrize("reaped", [True, pytest.param(False, marks=pytest.mark.linux)])
def test_killed_owner_is_replaced_at_once(tmp_path, reaped):
    process = start(tmp_path, code=HOLD)
    assert process.stdout.readline().strip() == "True"
    assert take_lock(tmp_path) is None
    process.kill()
    if reaped:
        process.wait()
    else:  # a zombie has an id, but works on nothing
        deadline = time.monotonic() + 10
        while lock_owners.process_state(process.pid)[0] != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
    with take_lock(tmp_path) as lock:
        assert lock.path.name == "2"
        assert (tmp_path / "lock" / "1" / "taken").exists()
    process.wait()


def test_stopped_owner_on_this_machine_is_never_replaced(tmp_path):
    process = start(tmp_path, code=HOLD)
    assert process.stdout.readline().strip() == "True"
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 2 * FAST["stale_s"]
    while time.monotonic() < deadline:
        assert take_lock(tmp_path, **FAST) is None
        time.sleep(0.1)
    process.kill()
    process.wait()


def test_stalled_owner_elsewhere_is_replaced_and_notices(tmp_path, elsewhere, monkeypatch, caplog):
    sleeping = threading.Event()
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda *path: sleeping.is_set() or utime(*path))
    old = take_lock(tmp_path, **FAST)
    sleeping.set()
    deadline = time.monotonic() + 10
    while not (new := take_lock(tmp_path, **FAST)) and time.monotonic() < deadline:
        time.sleep(0.05)
    sleeping.clear()
    assert new
    assert new.held()
    assert not old.held()
    old.release()
    assert new.held()
    assert "lost the lock" in caplog.text
    new.release()


def test_beating_owner_elsewhere_is_never_replaced(tmp_path, elsewhere):
    with take_lock(tmp_path, **FAST) as lock:
        deadline = time.monotonic() + 2.5 * FAST["stale_s"]
        while time.monotonic() < deadline:
            assert take_lock(tmp_path, **FAST) is None
            time.sleep(0.1)
        assert lock.held()


def test_silent_owner_elsewhere_is_replaced_after_its_own_limit(tmp_path, clock):
    lock_of_silent_owner(tmp_path, stale_s=300.0)
    for _ in range(5):  # 0, 60, ... 240 s
        assert take_lock(tmp_path, stale_s=120) is None
        clock[0] += 60
    clock[0] += 1
    assert take_lock(tmp_path, stale_s=120) is not None


def test_long_gap_between_looks_counts_for_half_the_limit(tmp_path, clock):
    owner = lock_of_silent_owner(tmp_path)
    assert take_lock(tmp_path) is None
    clock[0] += 10_000  # we slept, or the file system was away for everybody
    assert take_lock(tmp_path) is None
    clock[0] += 30
    os.utime(owner)  # and the owner is back
    assert take_lock(tmp_path) is None
    for _ in range(2):
        clock[0] += 59
        assert take_lock(tmp_path) is None
    clock[0] += 3
    assert take_lock(tmp_path) is not None


@pytest.mark.parametrize("stamp", [0, 4_000_000_000])
def test_clocks_of_other_machines_play_no_part(tmp_path, clock, stamp):
    os.utime(lock_of_silent_owner(tmp_path), (stamp, stamp))
    assert take_lock(tmp_path) is None
    clock[0] += 59
    assert take_lock(tmp_path) is None
    clock[0] += 62
    assert take_lock(tmp_path) is None  # the long gap counted for 60 s
    clock[0] += 2
    assert take_lock(tmp_path) is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": -1, "stale_s": NaN}', b"\xff\x00", None]
)
def test_unreadable_owner_is_replaced_after_silence(tmp_path, clock, content):
    path = lock_of_silent_owner(tmp_path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert locks.holder(tmp_path) == {}
    for _ in range(3):
        assert take_lock(tmp_path) is None
        clock[0] += 59
    clock[0] += 3
    assert take_lock(tmp_path) is not None


# --- interleavings ----------------------------------------------------------------------------------------


def late_taker(monkeypatch, folder: Path, meanwhile) -> object:
    """What ``take_lock`` returns if ``meanwhile`` happens between its judgment and its rename."""
    rename, pending = os.rename, [meanwhile]

    def slow(source, target):
        if pending:
            pending.pop()()
        return rename(source, target)

    monkeypatch.setattr(os, "rename", slow)
    return take_lock(folder)


@pytest.mark.parametrize("times", [1, 2, KEPT, KEPT + 1, 3 * KEPT])
@pytest.mark.parametrize("still_held", [True, False])
def test_late_taker_comes_too_late(tmp_path, monkeypatch, times, still_held):
    take_lock(tmp_path).release()
    kept = []

    def others() -> None:
        for _ in range(times):
            lock = take_lock(tmp_path)
            kept.append(lock)
            lock.release()
        if still_held:
            kept.append(take_lock(tmp_path))

    assert late_taker(monkeypatch, tmp_path, others) is None
    if still_held:
        assert kept[-1].held()
    else:
        assert take_lock(tmp_path) is not None


def test_two_judges_of_one_dead_owner_give_one_new_owner(tmp_path, monkeypatch):
    process = start(tmp_path, code=HOLD)
    process.stdout.readline()
    process.kill()
    process.wait()
    won = []
    assert late_taker(monkeypatch, tmp_path, lambda: won.append(take_lock(tmp_path))) is None
    assert won[0].held()


def test_rename_whose_answer_was_lost_still_wins(tmp_path, monkeypatch):
    rename = os.rename

    def sent_twice(source, target):
        rename(source, target)
        rename(source, target)  # NFS repeats a request that got no answer

    monkeypatch.setattr(os, "rename", sent_twice)
    lock = take_lock(tmp_path)
    assert lock
    lock.release()
    monkeypatch.undo()
    assert not lock.held()
    assert take_lock(tmp_path) is not None
