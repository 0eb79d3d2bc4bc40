"""The line of the present run: rewritten on a terminal, once a minute in a pipe, never in the way of other output."""

import io
import os
import subprocess
import sys

import pytest

from harness.runtime import status_line
from harness.runtime.status_line import StatusLine, clock
from harness.runtime.terminal import SturdyStream
from tests.support.paths import ROOT


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch):
    """Not a fixture: pytest sets the streams anew when a test begins."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", SturdyStream(shown))
    monkeypatch.setattr(SturdyStream, "before_write", None)
    monkeypatch.setenv("COLUMNS", "80")
    return shown


def test_a_terminal_has_one_line_that_other_output_does_not_run_into(monkeypatch):
    terminal = open_terminal(monkeypatch)
    line = StatusLine()
    line.show("lora r=8", "step 1/9")
    line.show("lora r=8", "step 2/9")
    sys.stderr.write("a warning\n")
    line.show("lora r=8", "step 3/9")
    line.clear()
    line.clear()
    clear = "\r\x1b[K"
    assert terminal.getvalue() == (
        f"lora r=8  step 1/9{clear}lora r=8  step 2/9{clear}a warning\nlora r=8  step 3/9{clear}"
    )


def test_a_narrow_terminal_cuts_the_label_and_no_figure(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "30")
    line = StatusLine()
    line.show("lora trainer.learning_rate=0.005", "step 120/300  loss 0.41")
    assert terminal.getvalue() == "lor…  step 120/300  loss 0.41"
    line.clear()
    monkeypatch.setenv("COLUMNS", "20")
    line.show("lora", "step 120/300  loss 0.41")
    assert terminal.getvalue().endswith("step 120/300  loss 0.41")


def test_the_heading_of_a_sweep_replaces_the_label_and_control_characters_are_escaped(monkeypatch):
    terminal = open_terminal(monkeypatch)
    line = StatusLine()
    line.heading = "[2/4] lora \x1b[31m"
    line.show("lora r=8", "step 1/9")
    assert terminal.getvalue() == "[2/4] lora \\x1b[31m  step 1/9"


def test_a_pipe_gets_a_line_a_minute(monkeypatch):
    now, pipe = [0.0], io.StringIO()
    monkeypatch.setattr(status_line.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", SturdyStream(pipe))
    line = StatusLine()
    for second in range(0, 150, 2):
        now[0] = float(second)
        line.show("lora", f"step {second}/150")
    assert pipe.getvalue() == "lora  step 60/150\nlora  step 120/150\n"


def test_a_line_is_gone_when_the_next_message_comes_on_a_real_terminal(tmp_path):
    pty = pytest.importorskip("pty")
    code = (
        "from harness.runtime.terminal import sturdy_streams\n"
        "from harness.runtime.status_line import STATUS\n"
        "with sturdy_streams():\n"
        "    STATUS.show('lora', 'step 1/9'); print('result', flush=True)\n"
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=theirs, cwd=ROOT, check=True)
    os.close(theirs)
    seen = os.read(ours, 1000).decode()
    os.close(ours)
    assert seen == "lora  step 1/9\r\x1b[Kresult\r\n"


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (62, "1:02"), (3599.6, "1:00:00"), (7384, "2:03:04")])
def test_time_left_reads_as_a_clock(seconds, shown):
    assert clock(seconds) == shown
