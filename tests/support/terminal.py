"""A command in a terminal of its own, as a person would type to it; POSIX only."""

import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROWS, COLUMNS = 30, 110


class Terminal:
    """What the command shows, and what is typed to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process, self._descriptor = process, descriptor
        self.screen = b""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def until(self, *marks: str, seconds: float = 240.0) -> None:
        """Wait until all of them have been shown since the last call."""
        start, end = len(self.screen), time.monotonic() + seconds
        while not all(mark.encode() in self.screen[start:] for mark in marks):
            assert time.monotonic() < end, self.screen.decode(errors="replace")
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.screen += os.read(self._descriptor, 65536)


@contextmanager
def in_terminal(words: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    """The command, which is killed at the end if it still runs."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "xterm"}, cwd=cwd)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
