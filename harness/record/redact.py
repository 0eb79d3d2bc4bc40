"""What must not reach a file: secrets, and numbers that JSON cannot hold."""

import io
import json
import math
import os
import re
import shlex
import urllib.parse
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import IO, Any


def to_plain(value: Any) -> Any:
    """Values that JSON lacks but records contain: paths, enums, and numbers of numpy and torch."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"a record cannot hold {value!r} of type {type(value).__name__}; use a number or text")


_SECRET_NAME = re.compile(r"API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_KEY$", re.IGNORECASE)


_SECRET_TEXT = re.compile(
    r"(?P<user>(?<=://)[^\s/]+(?=@))"  # https://name:password@host
    r"|(?P<bearer>(?<=Bearer )\S{8,})"
    r"|(?P<key>\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|wandb_v1_|xox[abp]-|AIza)[A-Za-z0-9_-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+)"
)


_SECRET_QUERY = re.compile(  # https://host/rows?access_token=value
    r"(?P<name>[?&][\w.-]*(?:key|token|secret|passw(?:or)?d|signature|sig|credential)[\w.-]*=)[^\s&#'\"]+",
    re.IGNORECASE,
)


_LEAST_SECRET = 8  # shorter values ("true", "0") are flags, and redacting them would garble the record


REDACTED = re.compile(r"<secret>|<[A-Za-z_][A-Za-z0-9_]*>")  # what stands in place of a secret


def redactor() -> Callable[[str], str]:
    """A function that redacts known shapes of keys, and the values of environment variables named like one.

    Every file that a run leaves, every message and every tracker passes its texts through it, before they are escaped
    for their format.
    """
    named = {value: f"<{name}>" for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    secrets = {
        spelling: place for value, place in named.items() if len(value) >= _LEAST_SECRET for spelling in _spelled(value)
    }
    # Longest first: a secret may contain another.
    ordered = sorted(secrets.items(), key=lambda each: len(each[0]), reverse=True)

    @cache  # a curve repeats its keys thousands of times
    def redact(text: str) -> str:
        for secret, place in ordered:
            text = text.replace(secret, place)
        return _SECRET_QUERY.sub(r"\g<name><secret>", _SECRET_TEXT.sub("<secret>", text))

    return redact


def _spelled(secret: str) -> set[str]:
    """How a secret reads where it was quoted: for a shell, for Hydra, in JSON, in a URL, in Python."""
    hydra = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ("\\" + match[2] if match[2] else ""), secret)
    spellings = {secret, hydra, shlex.quote(secret)[1:-1], json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    spellings |= {urllib.parse.quote(secret), urllib.parse.quote(secret, safe="")}
    return {each for each in spellings if len(each) >= _LEAST_SECRET}


class RedactedStream(io.TextIOBase):
    """A text stream in front of a file; each text that is written is redacted."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._redact = file, redactor()

    def write(self, text: str) -> int:
        """Write the text without its secrets."""
        self._file.write(self._redact(text))
        return len(text)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()


def clean(value: Any, where: str, lost: list[str], redact: Callable[[str], str]) -> Any:
    """A copy that JSON can hold; the keys of numbers that it cannot hold are appended to ``lost``."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return redact(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        lost.append(where)
        return None
    if isinstance(value, Mapping):
        return {
            redact(str(key)): clean(item, f"{where}.{key}".lstrip("."), lost, redact) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, f"{where}[{number}]", lost, redact) for number, item in enumerate(value)]
    return clean(to_plain(value), where, lost, redact)
