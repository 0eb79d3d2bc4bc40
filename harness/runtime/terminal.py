"""The console: text that cannot harm a terminal, and streams that cannot fail a command.

Results are in files before anything is printed, but a closed pipe, a terminal that is gone, or one that is not UTF-8
would still end the command with an error: within ``sturdy_streams`` what cannot be shown is lost, or replaced by what
the console has, and nothing else changes.
"""

import codecs
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# What a console without these characters shows instead, as wide as they are.
_PLAIN = str.maketrans("↑↓→±…–—·×≤≥“”‘’", "^v>~.--.x<>\"\"''")

# Everything that moves a cursor, changes colors or titles, or reverses the direction of text; not line ends and tabs.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_LINE = re.compile(r"[\t\n]")


def printable(text: str, one_line: bool = False) -> str:
    r"""The text with every control character as an escape such as ``\x1b``, so that a terminal only shows it.

    Args:
        one_line: for a name or a cell; line ends and tabs are escapes, too.
    """
    shown = _CONTROL.sub(_escape, text.replace("\r\n", "\n"))
    return _LINE.sub(_escape, shown) if one_line else shown


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def short_count(count: float) -> str:
    """``576``, ``9.2k``, ``1.2M``, ``3.1B``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        # 999 950 would round to "1000.0k"
        if count >= size * 0.99995 and count >= 1000:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_of(items: Sequence[str], most: int, between: str = ", ") -> str:
    """``a, b and 3 more``: so many of them, and how many are left out."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return between.join(items[:most]) + more


class PrintableFormatter(logging.Formatter):
    """Formats log lines so that a terminal only shows them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without control characters."""
        return printable(super().format(record))


@contextmanager
def sturdy_streams() -> Iterator[None]:
    """Wrap stdout and stderr: writing to them never raises."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = SturdyStream(before[0]), SturdyStream(before[1])
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, SturdyStream):
                stream.settle()
        sys.stdout, sys.stderr = before


class SturdyStream:
    """A text stream to which writing never raises; None, which Python has for a closed one, takes everything too."""

    before_write: Callable[[], None] | None = None  # of all streams: called before each text, to clear a status line

    def __init__(self, stream: Any) -> None:
        self._stream, self._lost = stream, stream is None

    def write(self, text: str) -> int:
        """Write what the console can show; after an error, nothing more."""
        if SturdyStream.before_write is not None:
            SturdyStream.before_write()
        if not self._lost:
            try:
                self._write(text)
            except (OSError, ValueError):  # ValueError: it was closed
                self._lost = True
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self.encoding
            shown = "".join(_shown(char, encoding) for char in text)
            self._stream.write(shown)

    def writelines(self, lines: Any) -> None:
        """Write them one after another."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if there is still anybody to read it."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._lost = True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and bool(self._stream.isatty())
        except (OSError, ValueError):
            return False

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def settle(self) -> None:
        """Flush now; otherwise Python does it at its exit, and an error there changes the exit code."""
        self.flush()
        if self._lost and self._stream is not None:
            with suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        if self.__dict__.get("_stream") is None:
            raise AttributeError(name)
        return getattr(self._stream, name)


def _shown(char: str, encoding: str) -> str:
    """The character, something like it, or its number."""
    for candidate in (char, char.translate(_PLAIN)):
        with suppress(UnicodeEncodeError, LookupError):
            codecs.encode(candidate, encoding)
            return candidate
    return char.encode("ascii", "backslashreplace").decode("ascii")
