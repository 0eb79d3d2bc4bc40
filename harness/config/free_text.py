"""Paths and other text on the command line: as typed, whatever characters they contain.

Hydra's grammar reads ``39e5`` as a number and ``a, b`` as two values, and refuses ``~``, letters outside ASCII and lone
brackets. Settings that take text say so in the schema (``harness.frozen.text``); their values are quoted here before
Hydra sees them, unless Hydra would read the same text anyway. Quotes that were typed around a whole value, ``null``,
and lists of names keep their meaning; so do commas and functions such as ``glob(*)`` in a sweep. Names in braces may be
in quotes, which Hydra's grammar refuses.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_origin, get_type_hints

from harness.config import schema
from harness.config.names import known_settings
from harness.frozen import TEXT, Text

MULTIRUN = ("-m", "--multirun")

# Functions whose result is several values; with -m they keep their meaning.
_SWEEP_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)", re.DOTALL)

_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def quote_free_text(arguments: Sequence[str]) -> list[str]:
    """The command as Hydra reads it: ``-m`` before the overrides, which Hydra demands, and text in quotes."""
    flags = [each for each in arguments if each in MULTIRUN]
    rest = [each for each in arguments if each not in MULTIRUN]
    sweeps = bool(flags) or any(each.startswith("hydra.mode=") and "MULTIRUN" in each for each in rest)
    return flags[:1] + [quoted(each, sweeps) for each in rest]


def quoted(argument: str, sweeps: bool) -> str:
    """One argument of the command; ``sweeps``: a comma separates the values of a sweep."""
    key, equals, value = argument.partition("=")
    kind = text_settings().get(key.lstrip("+"))
    if key.lstrip("+") in dict_settings() and "{" in value:
        return f"{key}={_QUOTED_KEY.sub(_bare_key, value)}"
    if kind is None or not equals or key.startswith("-"):
        return argument
    text, holds_list = kind
    if text is Text.verbatim:
        return f"{key}={value if value == 'null' or _in_quotes(value) else _quote(value, verbatim=True)}"
    if not sweeps:
        return f"{key}={_one(value, holds_list)}"
    if _SWEEP_FUNCTION.fullmatch(value) and _parsed(value) is not None:
        return argument
    return f"{key}={','.join(_one(each.strip(), holds_list) for each in _split(value))}"


@cache
def text_settings() -> dict[str, tuple[Text, bool]]:
    """Every setting that takes text, by dotted name, and whether it may be a list or a group of its own."""
    return dict(_below(schema.Config, ""))


@cache
def dict_settings() -> frozenset[str]:
    """Settings that map names to values, whose names Hydra does not take in quotes."""
    return frozenset(key for key, kind in known_settings().items() if get_origin(kind) is dict)


# A name in quotes before a colon. In Hydra's braces a backslash stands before each of these characters of a name.
_QUOTED_KEY = re.compile(r"""(?<=[{,])\s*(['"])(?P<name>.*?)\1\s*:""")
_SPECIAL = r"[\\()\[\]{}:=, \t]"


def _bare_key(match: re.Match[str]) -> str:
    name = re.sub(rf"\\(?={_SPECIAL})", r"\\\\", match["name"])
    return re.sub(r"[()\[\]{}:=, \t]", lambda special: "\\" + special[0], name) + ":"


def _below(node: type, prefix: str) -> Iterator[tuple[str, tuple[Text, bool]]]:
    kinds = get_type_hints(node)
    for each in fields(node):
        kind = kinds[each.name]
        if TEXT in each.metadata:
            yield prefix + each.name, (each.metadata[TEXT], kind is Any or "list[" in str(kind))
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _below(kind, f"{prefix}{each.name}.")


def _one(value: str, holds_list: bool) -> str:
    """One value, in quotes unless Hydra reads it as this text."""
    if holds_list and value[:1] == "[" and value[-1:] == "]":
        inside = value[1:-1].strip()
        return f"[{','.join(_one(each.strip(), False) for each in _split(inside))}]" if inside else value
    if holds_list and value[:1] == "{" and _parsed(value) is not None:
        return value
    if value == "" or value.lower() == "null" or _in_quotes(value):
        return value
    read = _parsed(value)
    # A backslash is Hydra's own way to take one character as it is.
    if isinstance(read, str) and (read == value or "\\" in value):
        return value
    return _quote(value)


def _parsed(value: str) -> Any:
    """What Hydra reads; None if it refuses the value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except (HydraException, ValueError, OverflowError, RecursionError):
        return None


def _in_quotes(value: str) -> bool:
    """Whether the whole value is one text in quotes."""
    return value[:1] in ("'", '"') and _closing(value, 0) == len(value) - 1


def _closing(value: str, start: int) -> int:
    """Where the text that opens with the quote at ``start`` ends; -1 if it does not."""
    escaped = False
    for place in range(start + 1, len(value)):
        if not escaped and value[place] == value[start]:
            return place
        escaped = value[place] == "\\" and not escaped
    return -1


def _quote(value: str, verbatim: bool = False) -> str:
    """The text in quotes, so that Hydra takes it as it is; ``verbatim``: ``${...}`` too."""
    # Double the backslashes before a quote, where Hydra halves them, and add one before ${, which OmegaConf drops.
    escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ("\\" + match[2] if match[2] else ""), value)
    return '"' + (escaped.replace("${", "\\${") if verbatim else escaped) + '"'


def _split(value: str) -> list[str]:
    """The parts between commas; commas within brackets and within quotes around a part do not count."""
    parts, start, place, open_brackets = [], 0, 0, list[str]()
    while place < len(value):
        char = value[place]
        if char in "'\"" and not open_brackets and not value[start:place].strip() and _closing(value, place) > 0:
            place = _closing(value, place)
        elif char == "\\":
            place += 1
        elif char in _BRACKETS:
            open_brackets.append(_BRACKETS[char])
        elif open_brackets and char == open_brackets[-1]:
            open_brackets.pop()
        elif char == "," and not open_brackets:
            parts.append(value[start:place])
            start = place + 1
        place += 1
    return value.split(",") if open_brackets else [*parts, value[start:]]
