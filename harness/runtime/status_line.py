"""One line that says how far the present run is: rewritten in place on a terminal, once a minute in a file or pipe."""

import shutil
import sys
import time

from rich.cells import cell_len, set_cell_size

from harness.runtime.terminal import SturdyStream, printable

EVERY_S = 60.0  # between lines that stay

_CLEAR = "\r\x1b[K"


class StatusLine:
    """The line of one process on stderr; whatever else is printed there or on stdout comes before it.

    Attributes:
        heading: which run of how many, such as ``[2/4] lora r=8``; a sweep sets it, for a single run it is empty.
    """

    def __init__(self) -> None:
        self.heading = ""
        self._shown = False
        self._last = time.monotonic()

    def show(self, label: str, figures: str) -> None:
        """Show the figures behind the heading, or behind the label if there is none.

        Figures are never cut; a terminal that is too narrow cuts the label.
        """
        label = printable(self.heading or label, one_line=True)
        if sys.stderr.isatty():
            room = shutil.get_terminal_size().columns - 1 - cell_len(figures) - 2
            if cell_len(label) > room:
                label = set_cell_size(label, room - 1) + "…" if room > 1 else ""
            self.clear()
            sys.stderr.write(f"{label}  {figures}" if label else figures)
            sys.stderr.flush()
            self._shown = True
            SturdyStream.before_write = self.clear
        elif time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            sys.stderr.write(f"{label}  {figures}\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._shown:
            self._shown = False
            SturdyStream.before_write = None
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()


STATUS = StatusLine()  # of the process, as its terminal is


def clock(seconds: float) -> str:
    """``1:02``, ``2:03:04``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
