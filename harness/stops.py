"""SIGTERM and Ctrl-C: training writes a checkpoint first; everything else stops at once.

``listening`` turns both signals into ``Interrupted``. Inside ``deferred``, the first signal is only noted, and
whoever asks ``asked()`` at a good moment writes what is worth keeping and raises; a second signal does not wait.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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


_state = _State()


@contextmanager
def listening(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
    """Raise ``Interrupted`` on these signals; outside a process's main thread, which alone hears them, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {signum: signal.signal(signum, _handle) for signum in signals}
    _state.noted = None
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


def asked() -> int | None:
    """The signal that waits, or None."""
    return _state.noted


def _handle(signum: int, frame: FrameType | None) -> None:
    if _state.deferring and _state.noted is None:
        _state.noted = signum
        os.write(2, b"\nstopping after a checkpoint; once more: at once\n")  # print is not safe in a handler
        return
    _state.noted = signum
    raise Interrupted(signum)
