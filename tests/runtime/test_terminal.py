"""Text on a terminal: nothing in it moves a cursor, changes colors, or reverses other text."""

import pytest

from harness.runtime.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, 中药, é, \U0001f355", "plain, 中药, é, \U0001f355"),
        ("a\x1b[2Jb\x07", "a\\x1b[2Jb\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("over\rwritten", "over\\rwritten"),
        ("two\r\nlines\n\tand a tab", "two\nlines\n\tand a tab"),
        ("abc\u202efdp.exe\u2066", "abc\\u202efdp.exe\\u2066"),
        ("half \udc80", "half \\udc80"),
    ],
)
def test_control_characters_are_shown_and_text_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_line_shows_line_ends_too() -> None:
    assert printable("a\tb\nc\r\nd", one_line=True) == "a\\tb\\nc\\nd"
