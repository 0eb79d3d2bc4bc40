"""SIGTERM and Ctrl-C: training writes a checkpoint first; everything else stops at once.

``listening`` turns both signals into ``Interrupted``. Inside ``deferred``, the first signal is only noted, and
whoever asks ``asked()`` at a good moment writes what is worth keeping and raises; a second signal does not wait.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


ECHO_S = 2.0  # a terminal and a parent process may both pass one stop on


class Interrupted(KeyboardInterrupt):
    """The process was told to stop. Not an ``Exception``: no run's error handling may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class _State:
    deferring = False
    noted: int | None = None
    noted_at = 0.0


_state = _State()


@contextmanager
def listening(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
    """Raise ``Interrupted`` on these signals; outside a process's main thread, which alone hears them, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.noted = None
    former = {signum: signal.signal(signum, _handle) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal wait until ``asked`` is looked at, or until this context ends."""
    _state.deferring = True
    try:
        yield
    finally:
        _state.deferring = False
    if _state.noted is not None:
        raise Interrupted(_state.noted)


def requested() -> int | None:
    """The signal that waits, or None."""
    return _state.noted


def _handle(signum: int, frame: FrameType | None) -> None:
    if _state.noted is not None and time.monotonic() - _state.noted_at < ECHO_S:
        return
    first, _state.noted, _state.noted_at = _state.noted is None, signum, time.monotonic()
    if _state.deferring and first:
        os.write(2, b"\nstopping after a checkpoint; once more: at once\n")  # print is not safe in a handler
        return
    raise Interrupted(signum)
