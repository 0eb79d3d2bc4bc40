"""What POSIX has, and its substitutes where it has not: both sides, on this system."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from harness.runtime import platform


@pytest.fixture
def windows(monkeypatch):
    """The other side."""
    monkeypatch.setattr(platform, "POSIX", False)


def test_a_file_that_another_process_has_open_is_waited_for(windows, tmp_path):
    refusals = [PermissionError(13, "in use")] * 3

    def rename(text):
        if refusals:
            raise refusals.pop()
        return text

    assert platform.patiently(rename, "done") == "done"
    with pytest.raises(PermissionError):
        platform.patiently(lambda: (_ for _ in ()).throw(PermissionError(13, "for good")), seconds=0.03)


@pytest.mark.skipif(not platform.POSIX, reason="on Windows a refusal may pass")
def test_on_posix_a_refusal_is_final():
    calls = []

    def refuse():
        calls.append(1)
        raise PermissionError(13, "no")

    with pytest.raises(PermissionError):
        platform.patiently(refuse)
    assert calls == [1]


def test_other_errors_are_not_waited_for(windows):
    with pytest.raises(FileExistsError):
        platform.patiently(lambda: (_ for _ in ()).throw(FileExistsError(17, "there")))


def test_a_folder_is_opened_only_where_that_works(windows, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "open", lambda *about: pytest.fail("opened a folder"))
    platform.sync_folder(tmp_path)


@pytest.mark.parametrize("posix", [pytest.param(True, marks=pytest.mark.posix), False])
def test_a_file_is_synced_and_stays_as_it_is(monkeypatch, tmp_path, posix):
    monkeypatch.setattr(platform, "POSIX", posix)
    (tmp_path / "file").write_bytes(b"abc")
    platform.sync_file(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"abc"


def test_a_signal_to_oneself_reaches_the_handler_without_a_kill(windows, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *about: pytest.fail("this ends the process"))
    seen = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        thread = threading.Thread(target=platform.signal_self, args=(signal.SIGTERM,))
        thread.start()
        thread.join()
        end = time.monotonic() + 5
        while not seen and time.monotonic() < end:
            time.sleep(0.001)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("posix", [pytest.param(True, marks=pytest.mark.posix), False])
def test_a_process_is_asked_for_without_ending_it(monkeypatch, posix):
    monkeypatch.setattr(platform, "POSIX", posix)
    assert platform.process_exists(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert not platform.process_exists(process.pid)


def test_a_parent_that_has_ended_is_noticed_without_its_id(windows):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lives = platform.watch_parent(process.pid)
    assert lives()
    process.communicate(b"\n")
    assert not lives()
    assert not platform.watch_parent(process.pid)()


def test_an_alarm_of_a_thread_comes_once_and_can_be_taken_back(monkeypatch):
    monkeypatch.delattr(signal, "setitimer", raising=False)
    seen = []
    former = signal.signal(platform.TIME_SIGNAL, lambda number, frame: seen.append(number))
    try:
        with platform.alarm(30):
            pass
        with platform.alarm(0.01):
            end = time.monotonic() + 5
            while not seen and time.monotonic() < end:
                time.sleep(0.001)
    finally:
        signal.signal(platform.TIME_SIGNAL, former)
    assert seen == [platform.TIME_SIGNAL]
