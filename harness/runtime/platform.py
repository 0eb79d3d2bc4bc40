"""What POSIX systems have and Windows does not, each with its substitute, in one place.

``POSIX`` is false wherever ``fcntl`` cannot be imported, so that tests see the other side by hiding that module.
"""

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def _is_posix() -> bool:
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


POSIX = _is_posix()

BUSY_S = 5.0  # for which another process may keep a file open that we want to replace


# Ctrl-C, a stop from outside, the terminal is gone, Ctrl-Break or a closed window on Windows.
STOP_SIGNALS = tuple(
    signal.Signals(getattr(signal, name))
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


TIME_SIGNAL = signal.Signals(getattr(signal, "SIGALRM", signal.SIGABRT))  # of the process's own timer


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder outlive a power cut. Windows opens no folders, and its journal does this."""
    if not POSIX:
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_file(path: Path) -> None:
    """Make a file that another library has written outlive a power cut."""
    with path.open("rb" if POSIX else "r+b") as file:  # Windows refuses this on a file that is open for reading
        os.fsync(file.fileno())


def patiently(action: Callable[..., Result], *arguments: object, seconds: float = BUSY_S) -> Result:
    """``action(*arguments)``, which renames, replaces or reads; on Windows again, for a while, if it is refused.

    Windows refuses it for as long as another process, such as a reader or a virus scanner, has the file open.

    Raises:
        PermissionError: it is refused to the end.
    """
    end = time.monotonic() + (0.0 if POSIX else seconds)
    pause = 0.005
    while True:
        try:
            return action(*arguments)
        except PermissionError:
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.2)


def process_exists(pid: int) -> bool:
    """Whether a process has this id. On Windows signal 0 is more than a question: ``os.kill`` ends the process."""
    if not POSIX:
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # of another user: it exists
    return True


def signal_self(signum: signal.Signals) -> None:
    """Send this process a signal from any thread. ``os.kill`` would end it at once on Windows, without its handler."""
    if POSIX:
        os.kill(os.getpid(), signum)
    else:
        _thread.interrupt_main(signum)


def can_signal_others() -> bool:
    """Whether another process can be asked to stop by a signal; on Windows a signal only kills."""
    return POSIX


def watch_parent(parent: int) -> Callable[[], bool]:
    """A function that says whether the process that started this one still runs."""
    if POSIX:
        return lambda: os.getppid() == parent
    import psutil

    try:
        process = psutil.Process(parent)  # knows when it started: a later process of its id is another
    except psutil.NoSuchProcess:
        return lambda: False
    return lambda: bool(process.is_running())


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Send this process ``TIME_SIGNAL`` after so many seconds; only for the main thread.

    Where there is no such timer (Windows), a thread does it: it interrupts the next step of Python, but no wait.
    """
    if hasattr(signal, "setitimer") and hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return
    timer = threading.Timer(max(seconds, 1e-3), _thread.interrupt_main, (TIME_SIGNAL,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
