"""Python as it is on Windows, as far as this project could notice: imported by every process that has this folder on
its path, before anything else (``tests/conftest.py`` puts it there if ``HARNESS_WITHOUT_POSIX=1``).

Functions and signals of ``os`` and ``signal`` that Windows lacks are gone. What other packages need here, because they
look at ``sys.platform``, is refused to this project's own code alone: modules that only POSIX has, files of Linux
(``/proc``), opening a folder, ``fsync`` of a file that is open for reading, and every use of ``os.kill``.
"""

import builtins
import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

HIDDEN_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog")
HIDDEN_OF_OS = (
    *("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getloadavg", "nice", "setsid", "mkfifo"),
    *("wait3", "wait4"),
)
HIDDEN_OF_SIGNAL = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm", "setitimer", "getitimer", "ITIMER_REAL")
LINUX = ("/proc", "/sys/fs/cgroup", "/dev/shm")
BETWEEN = ("pathlib", "contextlib", "io", "sitecustomize")  # frames that call for others


def asked_by_us() -> bool:
    """Whether the harness itself, not a library, made the call that is looked at."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_globals.get("__name__", "").startswith(("harness.", "hydra_plugins."))


def refusing(
    function: Callable[..., Any], refuses: Callable[..., int | None], fails: Callable[..., Exception]
) -> Callable[..., Any]:
    """The function, which fails if the harness calls it with what ``refuses`` gives an error number for."""

    def called(*arguments: Any, **named: Any) -> Any:
        number = refuses(*arguments)
        if number is not None and asked_by_us():
            raise fails(number, os.strerror(number), str(arguments[0]))
        return function(*arguments, **named)

    return called


def importing(usual: Callable[..., Any]) -> Callable[..., Any]:
    """``__import__``, which fails for the harness where it would on Windows."""

    def called(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] in HIDDEN_MODULES and asked_by_us():
            raise ImportError(f"no module named {name} on Windows", name=name)
        return usual(name, *more, **named)

    return called


def of_linux(path: Any, *rest: Any) -> int | None:
    return errno.ENOENT if str(path).startswith(LINUX) else None


def a_folder(path: Any, *rest: Any) -> int | None:
    return errno.EACCES if os.path.isdir(path) else None


def for_reading(opened: Any, get: Callable[..., int] = fcntl.fcntl, flags: int = fcntl.F_GETFL) -> int | None:
    return errno.EBADF if get(opened, flags) & os.O_ACCMODE == os.O_RDONLY else None


def started_likewise(start: Callable[..., None]) -> Callable[..., None]:
    """``Popen.__init__``, whose processes have this folder on their path, whatever environment they are given."""
    here = os.path.dirname(os.path.abspath(__file__))

    def called(self: Any, *arguments: Any, **named: Any) -> None:
        given = named.get("env")
        kept = os.environ if given is None else given
        path = kept.get("PYTHONPATH", "").split(os.pathsep)
        if here not in path:
            named["env"] = {**kept, "PYTHONPATH": os.pathsep.join([here, *path])}
        start(self, *arguments, **named)

    return called


def always(*rest: Any) -> int | None:
    return errno.EPERM


def hide() -> None:
    """Hide it all in this process."""
    subprocess.Popen.__init__ = started_likewise(subprocess.Popen.__init__)  # type: ignore[method-assign]
    builtins.__import__ = importing(builtins.__import__)
    for owner, names in ((os, HIDDEN_OF_OS), (signal, HIDDEN_OF_SIGNAL)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    io.open = builtins.open = refusing(io.open, of_linux, OSError)
    os.readlink = refusing(os.readlink, of_linux, OSError)
    os.open = refusing(os.open, a_folder, OSError)
    os.fsync = refusing(os.fsync, for_reading, OSError)
    os.kill = refusing(os.kill, always, lambda *about: AssertionError("on Windows os.kill ends the process"))


hide()
