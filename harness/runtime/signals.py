"""SIGTERM, Ctrl-C and a closed terminal: training writes a checkpoint first; everything else stops at once.

``listening`` turns the signals into ``Interrupted``. Inside ``deferred``, the first signal is only noted: whoever
checks ``requested()`` writes what is worth keeping and then raises. A second signal does not wait.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from harness.runtime.platform import STOP_SIGNALS, TIME_SIGNAL, alarm

SIGNALS = STOP_SIGNALS

ECHO_S = 2.0  # a terminal and a parent process may both forward the same stop


class Interrupted(KeyboardInterrupt):
    """The process was told to stop. Not an ``Exception``: no run's error handling may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit code of a process that a signal ended, as shells count: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


def is_ctrl_c(stop: KeyboardInterrupt) -> bool:
    """Whether somebody at the keyboard stopped the process, rather than another signal."""
    return int(getattr(stop, "signum", signal.SIGINT)) == signal.SIGINT


class TimeIsUp(Interrupted):
    """The time of a command is over."""

    def __init__(self) -> None:
        super().__init__(TIME_SIGNAL)
        self.args = ("stopped because the time of its command was over",)


class _State:
    """What was requested of this process. Global, because a signal handler gets no other state."""

    deferring = False
    insisted = False
    noted: int | None = None
    noted_at = 0.0
    forwarded: int | None = None


_state = _State()


@contextmanager
def listening(signals: tuple[signal.Signals, ...] = SIGNALS, forwarded: signal.Signals | None = None) -> Iterator[None]:
    """Raise ``Interrupted`` on these signals; outside the main thread, which receives them, do nothing.

    A signal that this process was started to ignore (SIGHUP, by nohup) stays ignored.

    Args:
        forwarded: what the parent process sends when it is stopped itself. It is never a second signal: the terminal
            may have sent the first, at any time before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.noted, _state.forwarded, _state.insisted = None, forwarded, False
    with kept(tuple(signum for signum in signals if not _ignored(signum))) as taken:
        for signum in taken:
            signal.signal(signum, _handle)
        yield


@contextmanager
def kept(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[tuple[signal.Signals, ...]]:
    """Put the handlers of these signals back at the end: of a block that sets others, in Python or below it.

    Gives the signals; outside the main thread, which alone can set handlers, nothing is put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    former = {signum: signal.getsignal(signum) for signum in signals}
    try:
        yield signals
    finally:
        for signum, handler in former.items():
            if handler is not None:  # None: set by no Python code
                signal.signal(signum, handler)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeIsUp`` after so many seconds, inside ``deferred`` once the next checkpoint is written.

    Outside the main thread nothing is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(TIME_SIGNAL, _handle)
    try:
        with alarm(seconds):
            yield
    finally:
        signal.signal(TIME_SIGNAL, former)
        if _state.noted == TIME_SIGNAL:
            _state.noted = None  # later signals are first ones


def interruption(signum: int) -> Interrupted:
    """What a signal raises."""
    return TimeIsUp() if signum == TIME_SIGNAL else Interrupted(signum)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal wait until ``requested`` is checked, or until this context ends."""
    _state.deferring = True
    try:
        yield
    finally:
        _state.deferring = False
    if _state.noted is not None:
        raise interruption(_state.noted)


def requested() -> int | None:
    """The signal that is waiting, or None."""
    return _state.noted


def insisted() -> bool:
    """Whether a second signal has come: then nothing waits for a checkpoint any more."""
    return _state.insisted


def exchange_deferral(deferring: bool) -> bool:
    """Set whether a first signal waits, and return whether it did: for whoever switches between runs of a process."""
    before, _state.deferring = _state.deferring, deferring
    return before


def _ignored(signum: signal.Signals) -> bool:
    return signum not in (signal.SIGTERM, signal.SIGINT) and signal.getsignal(signum) is signal.SIG_IGN


def _handle(signum: int, frame: FrameType | None) -> None:
    echo = time.monotonic() - _state.noted_at < ECHO_S or signum == _state.forwarded
    if _state.noted is not None and echo:
        return
    first, _state.noted, _state.noted_at = _state.noted is None, signum, time.monotonic()
    if _state.deferring and first:
        # Not print, which is not safe in a handler.
        with suppress(OSError):  # the terminal may be gone
            why = b"the time is over: " if signum == TIME_SIGNAL else b""
            os.write(2, b"\n" + why + b"stopping after the next checkpoint; press Ctrl-C again to stop now\n")
        return
    _state.insisted = not first
    raise interruption(signum)
