"""The console: text that cannot harm a terminal."""

import re

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
