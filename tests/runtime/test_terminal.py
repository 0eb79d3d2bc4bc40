"""The console shows every text and harms nothing; broken consoles fail nothing."""

import io
import logging
import os
import subprocess
import sys

import pytest

from harness.runtime.terminal import PrintableFormatter, SturdyStream, printable, sturdy_streams
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07 \x1b[2J", r"\x1b]0;title\x07 \x1b[2J"),
        ("a\rb\x08c\x9b31m", r"a\rb\x08c\x9b31m"),
        ("two\nlines\tand 中药", "two\nlines\tand 中药"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("dos\r\n", "dos\n"),
        ("half \udc80", "half \\udc80"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown
    line = logging.LogRecord("harness", logging.INFO, "", 1, "%s", (text,), None)
    assert PrintableFormatter("%(message)s").format(line) == shown


def test_a_name_stays_on_one_line():
    assert printable("a\nb\tc", one_line=True) == r"a\nb\tc"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"^ 1 ~2 \\u4e2d."), ("cp1252", "^ 1 ±2 \\u4e2d…".encode("cp1252")), ("utf-8", "↑ 1 ±2 中…".encode())],
)
def test_what_the_console_lacks_is_replaced(encoding, shown):
    raw = io.BytesIO()
    stream = SturdyStream(io.TextIOWrapper(raw, encoding=encoding))
    stream.write("↑ 1 ±2 中…")
    stream.flush()
    assert raw.getvalue() == shown


class Broken(io.StringIO):
    """A terminal that is gone."""

    def write(self, text):
        raise OSError(5, "Input/output error")

    def isatty(self):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [Broken(), None])
def test_nothing_that_is_written_to_a_broken_stream_raises(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    with sturdy_streams():
        print("lost", flush=True)
        print("lost", file=sys.stderr)
        sys.stdout.writelines(["a", "b"])
        assert not sys.stdout.isatty()
    assert sys.stdout is stream


CODE = (
    "import sys; from harness.runtime.terminal import sturdy_streams\n"
    "with sturdy_streams():\n"
    "    [print('x' * 999) for _ in range(999)]\n"
    "    sys.exit(7)"
)


def test_a_closed_pipe_does_not_change_the_exit_code():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (process.returncode, process.stderr) == (7, b"")
